"""One connection to a provider: sends a request in one go and hands the answer over as it arrives."""

import asyncio
import re
from typing import Protocol, cast

import httptools
import msgspec

Headers = list[tuple[bytes, bytes]]

_NO_BODY = frozenset({204, 304})
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_HEAD_BYTES = 256 * 1024
"""Of status lines, headers, interim answers, chunk sizes and trailers in a row, without a byte of a body."""


READ_BYTES = 64 * 1024
"""Read at once. So much and what one write buffer holds is in memory for a client that does not read; uvloop by itself
reads 256 kB."""


class Head(msgspec.Struct, frozen=True):
    """Status line and headers of an answer, names as the provider wrote them. length: None without Content-Length."""

    status: int
    reason: bytes
    headers: Headers
    length: int | None


class Answer(Protocol):
    """Who receives an answer. The calls come in this order: head, any number of data, then one of ended or lost."""

    def head(self, head: Head) -> None: ...
    def data(self, data: bytes) -> None: ...
    def ended(self) -> None: ...
    def lost(self, reason: str) -> None: ...


class Via(msgspec.Struct, frozen=True):
    """How a request for an http provider is put to a proxy. before: what makes its target absolute."""

    before: bytes
    authorization: bytes

    def wrapped(self, head: bytes) -> bytes:
        method, rest = head.split(b" ", 1)
        line, fields = rest.split(b"\r\n", 1)
        ours = b"Proxy-Authorization: %b\r\n" % self.authorization if self.authorization else b""
        return b"%b %b%b\r\n%b%b" % (method, self.before, line, ours, fields)


class Owner(Protocol):
    """Who is told that a connection can carry another request, or is gone."""

    def free(self, connection: "UpstreamConnection") -> None: ...
    def gone(self, connection: "UpstreamConnection") -> None: ...


_read_into = memoryview(bytearray(READ_BYTES))
"""Of all connections: the loop reads and tells of it in one go, and the parser copies what it hands on."""


class UpstreamConnection(asyncio.BufferedProtocol):
    """HTTP/1.1, one request at a time.

    requests: how many were sent on it. answered: whether a byte of the running answer has come. place, address: what it is
    connected to, by name and as found; idle_since, made_at: loop time. via: where a proxy reads the requests.
    """

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._bodies: list[bytes] = []
        self.on_body = self._bodies.append  # the parser's callback, once per event of a stream: no frame of ours for it
        self._parser = httptools.HttpResponseParser(self)
        self._answer: Answer | None = None
        self.requests = 0
        self.answered = False
        self.idle_since = 0.0
        self.made_at = 0.0
        self.place = ("", 0)
        self.address = ""
        self.via: Via | None = None
        self._reset()

    def _reset(self) -> None:
        self._reason = b""
        self._headers: Headers = []
        self._bodies.clear()
        self._has_head = False
        self._until_close = False
        self._complete = False
        self._keep_alive = False
        self._overhead = 0
        self._last: int | None = None  # how many bodies belong to this answer, where more than it came

    # What the pool and the relay call.

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def send(self, head: bytes, body: bytes, answer: Answer) -> None:
        """Write the request: the header block and the body, unchanged, leave in one system call where the kernel agrees."""
        assert self._answer is None, "one request at a time"
        self.requests += 1
        self.answered = False
        if self._transport is None:  # lost since it was lent
            asyncio.get_running_loop().call_soon(answer.lost, "closed")
            return
        self._answer = answer
        if self.via is not None:
            head = self.via.wrapped(head)
        self._transport.writelines([head, body] if body else [head])

    def pause(self) -> None:
        if self.usable and self._transport:
            self._transport.pause_reading()

    def resume(self) -> None:
        if self.usable and self._transport:
            self._transport.resume_reading()

    def abort(self) -> None:
        """Hang up now; the answer hears no more."""
        self._answer = None
        if self._transport:
            self._transport.abort()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by inheritance

    def get_buffer(self, sizehint: int) -> memoryview:
        return _read_into

    def buffer_updated(self, nbytes: int) -> None:
        data = _read_into[:nbytes]
        if self._answer is None:
            self.abort()  # an answer nobody asked for: whatever it is, it must not meet the next request
            return
        self.answered = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._keep_alive = False
            if not self._complete:  # else the answer is whole, and what follows it is junk
                self._flush()
                self._fail(f"malformed answer: {error}")
                return
        self._overhead = 0 if self._bodies else self._overhead + nbytes
        self._flush()
        if self._complete:
            self._end()
        elif self._overhead > _HEAD_BYTES:
            self._fail("the answer's head does not end")

    def eof_received(self) -> None:
        """Returning None closes; connection_lost follows."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.gone(self)
        self._transport = None
        del self._parser  # it holds us as we hold it
        answer, self._answer = self._answer, None
        if answer is None:
            return
        if self._has_head and self._until_close and exc is None:
            answer.ended()  # the only end such an answer has; the meter sees whether it was whole
        else:
            answer.lost("reset" if exc else "closed")

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self._complete:  # a second answer in the same read, which nobody asked for: it goes nowhere
            self._keep_alive = False
            self._last = len(self._bodies) if self._last is None else self._last

    def on_status(self, reason: bytes) -> None:
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._has_head:  # else a trailer, which nobody downstream reads
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self._complete:
            return
        if status < 100:
            raise ValueError(f"status {status}")  # the parser passes it on as an error of its own
        if _CONTROL.search(self._reason):  # the parser takes anything for a reason; a strict client does not
            raise ValueError("control characters in the reason")
        if self._parser.get_http_version() not in {"1.1", "1.0"}:
            raise ValueError("another version of HTTP")
        codings = [
            value.rstrip(b" \t").lower() for name, value in self._headers if name.lower() == b"transfer-encoding"
        ]
        if codings not in (
            [],
            [b"chunked"],
        ):  # the parser would hand on what is coded, as a body that ends with the connection
            raise ValueError("an unknown transfer coding")
        if status < 200:
            if codings or _length(self._headers):  # of one that it does not know, the parser reads the body
                raise ValueError("an interim answer with a body")
            self._headers, self._reason = [], b""
            return
        self._has_head = True
        length = _length(self._headers)
        self._until_close = length is None and not codings and status not in _NO_BODY
        if self._answer:
            self._answer.head(Head(status=status, reason=self._reason, headers=self._headers, length=length))

    def on_message_complete(self) -> None:
        if self._has_head and not self._complete:
            self._complete = True
            self._keep_alive = self._parser.should_keep_alive()

    def _flush(self) -> None:
        """Hand over what one read brought, joined: a burst of events is one write to the client."""
        if self._last is not None:
            del self._bodies[self._last :]
        if self._bodies and self._answer:
            data = self._bodies[0] if len(self._bodies) == 1 else b"".join(self._bodies)
            self._bodies.clear()
            self._answer.data(data)

    def _end(self) -> None:
        answer, self._answer = self._answer, None
        transport = self._transport
        assert transport is not None
        # An answer that came before its request was out leaves bytes that would be read as the next request.
        reusable = self._keep_alive and not transport.is_closing() and not transport.get_write_buffer_size()
        self._reset()
        if reusable:
            transport.resume_reading()  # a slow client may have paused it
            self._owner.free(self)
        else:
            transport.abort()  # not close: that would wait for an upstream which has stopped reading
        if answer:
            answer.ended()

    def _fail(self, reason: str) -> None:
        answer = self._answer
        self.abort()
        if answer:
            answer.lost(reason)


def _length(headers: Headers) -> int | None:
    return next((int(value) for name, value in headers if name.lower() == b"content-length"), None)
