"""The certificate that clients see: read again when its files change, without a connection noticing."""

import asyncio
import ssl

import structlog

from shared import telemetry
from shared.file_stamp import Stamp, stamp

log = structlog.get_logger()


class Certificate:
    """Files in PEM: the certificate with its chain, and its key, unencrypted.

    Raises OSError naming them when they cannot be used at the start. Later a pair that cannot be used (half written, of
    two certificates, no certificate at all) leaves the one before in place and is told once.
    """

    def __init__(self, cert_file: str, key_file: str) -> None:
        self._cert_file, self._key_file = cert_file, key_file
        self._stamp = self._found()
        self._current = self._load()
        self.listening = self._load()
        """What the server listens with. Each handshake is handed on to the certificate of the moment: this context
        itself is never loaded again, since a pair that does not match would leave it with half of it."""
        self.listening.sni_callback = self._hand_on

    async def watch(self, seconds: float) -> None:
        """Look for ever, once in so many seconds."""
        while True:
            await asyncio.sleep(seconds)
            await self.look()

    async def look(self) -> None:
        """Load the files if they have changed."""
        found = await asyncio.to_thread(self._found)
        if found == self._stamp:
            return
        self._stamp = found
        try:
            self._current = await asyncio.to_thread(self._load)
        except OSError as error:
            telemetry.edge_certificate_reloads.labels("failed").inc()
            telemetry.edge_certificate_stale.set(1)
            log.error("edge.certificate_not_reloaded", reason=str(error))
        else:
            telemetry.edge_certificate_reloads.labels("ok").inc()
            telemetry.edge_certificate_stale.set(0)
            log.info("edge.certificate_reloaded", cert_file=self._cert_file)

    def _found(self) -> Stamp:
        return stamp((self._cert_file, self._key_file))

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        context.options |= ssl.OP_NO_RENEGOTIATION
        try:
            context.load_cert_chain(self._cert_file, self._key_file, password="")  # or it would ask on the terminal
        except OSError as error:  # ssl.SSLError is one, and names no file
            raise OSError(f"{self._cert_file}, {self._key_file}: {error}") from None
        return context

    def _hand_on(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        """Called in every handshake, whether the client names a server or not."""
        connection.context = self._current
