"""Writes one answer to one request, framed as the client's HTTP version has it."""

import asyncio
from http import HTTPStatus
from typing import Protocol

from services.edge.handlers.request import Head

Headers = list[tuple[bytes, bytes]]

_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}
_NO_BODY = frozenset({204, 304})
PILE_BYTES = 64 * 1024
"""One turn of the loop may read megabytes of a provider: the transport must see them to say that the client is slow."""
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Exchange(Protocol):
    """What a running request hears of its client."""

    def client_gone(self) -> None: ...
    def client_slow(self) -> None: ...
    def client_ready(self) -> None: ...


class Connection(Protocol):
    """What an answer needs of the connection it goes out on."""

    @property
    def closing(self) -> bool: ...
    def answered(self, keep: bool) -> None: ...
    def broken(self) -> None: ...


class Responder:
    """One answer. Use `send`, or `start`, any number of `write`, then `finish` (or `abort`, where nothing well-formed is left).

    What one turn of the loop writes leaves in one go: head and body, or the last event and the end of its framing, are one
    system call and one packet. started: the status line is out. gone: the client is; writes then do nothing.
    """

    __slots__ = (
        "_bodiless",
        "_chunked",
        "_connection",
        "_keep",
        "_loop",
        "_parts",
        "_piled",
        "_transport",
        "bytes_out",
        "exchange",
        "gone",
        "head",
        "started",
    )

    def __init__(
        self, connection: Connection, transport: asyncio.Transport, head: Head, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._loop = loop
        self._connection = connection
        self._transport = transport
        self.head = head
        self.exchange: Exchange | None = None
        self.started = False
        self.gone = False
        self.bytes_out = 0
        self._chunked = False
        self._keep = False
        self._bodiless = False
        self._parts: list[bytes] = []
        self._piled = 0

    def send(self, status: int, headers: Headers, body: bytes, reason: bytes | None = None) -> None:
        """A whole answer."""
        self.start(status, headers, len(body), reason)
        self.write(body)
        self.finish()

    def start(
        self, status: int, headers: Headers, length: int | None, reason: bytes | None = None, close: bool = False
    ) -> None:
        """Status line and headers. length: of the body, None when it is not known. headers: without framing.

        reason: the provider's, which may be empty; None for the usual one.
        """
        self.started = True
        self._bodiless = self.head.method == "HEAD" or status in _NO_BODY
        self._keep = self.head.keep_alive and not self._connection.closing and not close
        lines = [b"HTTP/1.1 %d %s" % (status, _REASONS.get(status, b"") if reason is None else reason)]
        lines += [b"%s: %s" % header for header in headers]
        if length is not None and status not in _NO_BODY:
            lines.append(b"content-length: %d" % length)
        elif not self._bodiless:
            self._chunked = not self.head.http_1_0
            self._keep = self._keep and self._chunked
            if self._chunked:
                lines.append(b"transfer-encoding: chunked")
        if not self._keep:
            lines.append(b"connection: close")
        lines.append(b"\r\n")
        self._put(b"\r\n".join(lines))

    def write(self, data: bytes) -> None:
        if not data or self._bodiless:
            return
        self.bytes_out += len(data)
        # One buffer for the chunk's three parts: copying a read's worth of bytes is cheaper than three of them.
        chunk = b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data
        if self._parts:
            self._put(chunk)
        elif not self.gone:  # the loop itself writes at the end of its turn; nothing is waiting to be joined with this
            self._transport.write(chunk)

    def finish(self) -> None:
        """The answer is complete; the connection may carry the next one."""
        if self._chunked and not self._bodiless:
            self._put(b"0\r\n\r\n")
        self._flush()
        self.exchange = None  # the circle of the two would keep the request's body until a collection
        if not self.gone:
            self._connection.answered(self._keep)

    def probe(self) -> None:
        """Send something that changes nothing, for the sake of what the client's kernel answers.

        Before the answer an interim one; within a chunked one a leading zero of the next chunk's size, which fits
        wherever the answer stands; in other answers nothing would be harmless.
        """
        if not self.started and not self.head.http_1_0:
            self._put(CONTINUE)
        elif self._chunked and not self._bodiless:
            self._put(b"0")
        self._flush()

    def abort(self) -> None:
        """The answer cannot be completed: the client must notice, so the connection is reset."""
        self._flush()  # what has come counts, and the client sees how far it got
        if not self.gone:
            self._connection.broken()

    def _put(self, data: bytes) -> None:
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)
        self._piled += len(data)
        if self._piled > PILE_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._parts:
            data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._parts.clear()
            self._piled = 0
            if not self.gone:
                self._transport.write(data)
