"""A CONNECT through an HTTP proxy: asked for on a connection that is then the provider's."""

import asyncio
from typing import cast

import httptools

from services.edge.stores.upstream.origin import Origin
from services.edge.stores.upstream.proxies import Proxy

HEAD_BYTES = 16 * 1024
"""Of the proxy's answer; the page that comes with a refusal is not read."""


class Refused(OSError):
    """The proxy does not let us through, or speaks no HTTP."""


class Tunnel(asyncio.Protocol):
    """Speaks to the proxy until it has answered; `transport` is to be taken over then."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[int | str] = asyncio.get_running_loop().create_future()
        self._status = 0
        self._seen = 0
        self._more = False

    async def ask(self, origin: Origin, proxy: Proxy) -> None:
        """Return when the way to the provider is open. Raises Refused."""
        assert self.transport is not None
        host = f"[{origin.host}]" if ":" in origin.host else origin.host
        place = f"{host}:{origin.port}".encode()
        lines = [b"CONNECT %b HTTP/1.1" % place, b"Host: " + place]
        if proxy.authorization:
            lines.append(b"Proxy-Authorization: " + proxy.authorization)
        self.transport.write(b"\r\n".join([*lines, b"", b""]))
        answer = await self._answer
        if isinstance(answer, str):
            raise Refused(answer)
        if not 200 <= answer < 300:
            raise Refused(f"the proxy answered {answer}")

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are none by inheritance

    def data_received(self, data: bytes) -> None:
        self._seen += len(data)
        self._more = self._answer.done()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._more = True
        if self._more and self._status < 300:
            # Before our handshake a provider has nothing to say: what comes with the answer is nobody's word.
            self._tell("the proxy sent more than its answer" if self._status else "the proxy's answer is no HTTP")
            if self.transport:
                self.transport.abort()
        elif self._status:
            self._tell(self._status)
        elif self._seen > HEAD_BYTES:
            self._tell("the proxy's answer does not end")

    def connection_lost(self, exc: Exception | None) -> None:
        self._tell("the proxy hung up")

    # What the parser calls.

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        self._status = self._status or (status if status >= 200 else 0)

    def on_body(self, data: bytes) -> None:
        self._more = True

    def _tell(self, answer: int | str) -> None:
        """A result in either case: whoever asked may have left, and nobody would look at an exception."""
        if not self._answer.done():
            self._answer.set_result(answer)
