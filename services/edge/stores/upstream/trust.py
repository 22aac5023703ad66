"""Whom a provider's certificate must be signed by, and the certificate that we show where a provider asks for one."""

import asyncio
import ssl
import time

import structlog

from shared.file_stamp import Stamp, stamp
from shared.trust import verifying

log = structlog.get_logger()

LOOK_SECONDS = 1.0


class Trust:
    """Verifies names and chains with the system's store or SSL_CERT_FILE, and with ca_file beside them.

    Files that change are read again for the next connection; what cannot be read then leaves what was read before.
    Raises OSError naming the file where one cannot be read at the start. Empty names: none.
    """

    def __init__(self, ca_file: str = "", cert_file: str = "", key_file: str = "") -> None:
        self._ca_file, self._cert_file, self._key_file = ca_file, cert_file, key_file
        given = (ca_file, cert_file, key_file, ssl.get_default_verify_paths().cafile)
        self._files = [name for name in given if name]
        self._stamp: Stamp = stamp(self._files)
        self._context = self._load()
        self._looked_at = time.monotonic()

    async def context(self) -> ssl.SSLContext:
        """For the next connection."""
        now = time.monotonic()
        if now - self._looked_at >= LOOK_SECONDS:
            self._looked_at = now
            if (found := stamp(self._files)) != self._stamp:
                self._stamp = found
                await self._load_again()
        return self._context

    async def _load_again(self) -> None:
        try:
            self._context = await asyncio.to_thread(self._load)  # the system's store takes many milliseconds
        except OSError as error:
            log.error("edge.upstream_trust_not_reloaded", reason=str(error))
        else:
            log.info("edge.upstream_trust_reloaded")

    def _load(self) -> ssl.SSLContext:
        context = verifying(self._ca_file, self._cert_file, self._key_file)
        context.set_alpn_protocols(["http/1.1"])
        return context
