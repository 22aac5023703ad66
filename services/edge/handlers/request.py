"""Reads requests off a client connection. What is ambiguous is refused: two readers must never see two requests.

llhttp (httptools) refuses bare LF, obs-fold, both lengths, repeated lengths and bad chunks; what it lets pass and we
do not is checked here: HTTP/0.9, transfer codings other than exactly one `chunked`, a missing or repeated Host.
"""

import re
from collections.abc import Callable
from typing import NoReturn

import httptools
import msgspec

from shared.errors import Rejected

Headers = list[tuple[bytes, bytes]]
_AUTHORITY = re.compile(rb"[^/?]*")


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one request may have."""

    body_bytes: int = 32 * 1024 * 1024
    header_bytes: int = 64 * 1024
    headers: int = 128


class Room:
    """Memory for the bodies of all requests of a worker together, from their bytes' arrival until they are answered.

    most: bytes; 0 for no limit. Without it a few thousand connections, with any key or none, could fill a machine.
    """

    def __init__(self, most: int = 0) -> None:
        self.most = most
        self.taken = 0

    def take(self, count: int) -> bool:
        if self.most and self.taken + count > self.most:
            return False
        self.taken += count
        return True

    def give(self, count: int) -> None:
        self.taken -= count


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """A request before its body. path: with its query, as sent; headers: names as sent, values without surrounding space.

    length: of the body, None when it is chunked.
    """

    method: str
    path: str
    headers: Headers
    http_1_0: bool
    keep_alive: bool
    expects_continue: bool
    length: int | None


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A complete request."""

    head: Head
    body: bytes


class _Stop(Exception):
    """Ends the parser's loop from within a callback; the reason stands in the reader."""


def malformed(message: str) -> Rejected:
    return Rejected("invalid_request_error", message, 400)


class RequestReader:
    """Feed it bytes; it calls back at each head and each complete request, pipelined ones too.

    feed raises Rejected (400, 413, 431, 503) once; the connection cannot be read after that.
    """

    def __init__(
        self,
        limits: Limits,
        on_head: Callable[[Head], None],
        on_request: Callable[[Request], None],
        room: Room | None = None,
    ) -> None:
        self._limits = limits
        self._room = room or Room()
        self._taken = 0
        self._on_head = on_head
        self._on_request = on_request
        self._parser = httptools.HttpRequestParser(self)
        self._failure: Rejected | None = None
        self._head: Head | None = None
        self._unread = 0
        self._begin()

    def _begin(self) -> None:
        self._target = b""
        self._headers: Headers = []
        self._seen = 0
        self._head = None
        self._first = b""
        self._rest: bytearray | None = None
        self._size = 0
        self._overhead = 0
        self._came_on = True

    @property
    def in_head(self) -> bool:
        """Waiting for, or within, the head of a request."""
        return self._head is None

    @property
    def begun(self) -> bool:
        """Some bytes of a request that is not complete have come."""
        return self._head is not None or self._unread > 0

    def feed(self, data: bytes) -> None:
        self._unread += len(data)
        self._came_on = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if self._failure is None and isinstance(error, httptools.HttpParserCallbackError):
                raise  # not the client's doing: a bug of ours in a callback
            error.__context__ = None  # with the frames it came through, which lead back to the failure
            raise self._failure or malformed(f"malformed HTTP: {error}") from None
        # The parser keeps an unfinished line to itself; only the count of bytes fed can bound it.
        if self._head is None and self._unread > self._limits.header_bytes:
            raise self._too_large_head()
        # So with a chunk's size, its extensions and trailers, which are neither head nor body.
        self._overhead = 0 if self._came_on else self._overhead + len(data)
        if self._overhead > self._limits.header_bytes:
            raise self._too_large_head()

    def answered(self) -> None:
        """All that was read is answered: its bodies' room is free again."""
        self._room.give(self._taken)
        self._taken = 0

    def close(self) -> None:
        """Nothing more will come. In a circle with parser and connection, what was read would stay until a collection."""
        self.answered()
        self._begin()
        self._failure = None
        del self._parser, self._on_head, self._on_request

    def refuse(self, failure: Rejected) -> NoReturn:
        """Called from within on_request: read no further; `feed` raises this."""
        self._stop(failure)

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._begin()
        self._unread = self._unread or 1  # a pipelined request that has only begun in this read

    def on_url(self, part: bytes) -> None:
        self._target += part
        self._seen += len(part)
        if self._seen > self._limits.header_bytes:
            self._stop(self._too_large_head())

    def on_header(self, name: bytes, value: bytes) -> None:
        self._seen += len(name) + len(value) + 4
        if self._seen > self._limits.header_bytes:
            self._stop(self._too_large_head())
        if self._head is None:
            self._headers.append((name, value.rstrip(b" \t")))
            if len(self._headers) > self._limits.headers:
                self._stop(self._too_large_head())

    def on_headers_complete(self) -> None:
        if self._parser.should_upgrade():  # the parser would call the request complete and its body another protocol
            self._stop(malformed("upgrades and CONNECT are not served here"))
        version = self._parser.get_http_version()
        try:
            head = read_head(
                self._parser.get_method().decode(),
                self._target,
                version,
                self._headers,
                self._parser.should_keep_alive(),
            )
        except Rejected as error:
            self._stop(error)
        self._head, self._came_on = head, True
        if head.length is not None and head.length > self._limits.body_bytes:
            self._stop(self._too_large_body())
        self._on_head(head)

    def on_body(self, part: bytes) -> None:
        self._came_on = True
        self._size += len(part)
        if self._size > self._limits.body_bytes:
            self._stop(self._too_large_body())
        if not self._room.take(len(part)):
            self._stop(
                Rejected("overloaded_error", "The gateway has too many large requests in hand; retry in 1 s.", 503)
            )
        self._taken += len(part)
        if not self._first:
            self._first = part
        elif self._rest is None:
            self._rest = bytearray(self._first)
            self._rest += part
        else:
            self._rest += part  # one buffer: a list of one-byte chunks would weigh a hundred times its content

    def on_message_complete(self) -> None:
        assert self._head is not None
        request = Request(head=self._head, body=self._first if self._rest is None else bytes(self._rest))
        self._begin()
        self._unread = 0
        self._on_request(request)

    def _stop(self, failure: Rejected) -> NoReturn:
        self._failure = failure
        self._first, self._rest = b"", None  # the connection may linger, its body need not
        self.answered()
        raise _Stop

    def _too_large_head(self) -> Rejected:
        most = f"{self._limits.headers} headers, {self._limits.header_bytes} bytes"
        return Rejected("invalid_request_error", f"the request's head is too large (at most {most})", 431)

    def _too_large_body(self) -> Rejected:
        most = self._limits.body_bytes // (1024 * 1024)
        return Rejected("request_too_large", f"Request exceeds the maximum size of {most} MB", 413)


def read_head(method: str, target: bytes, version: str, headers: Headers, keep_alive: bool) -> Head:
    """Check what the parser does not, and take the framing's meaning from the headers. Raises Rejected(400)."""
    if version not in {"1.1", "1.0"}:
        raise malformed(f"HTTP/{version} is not served here")
    hosts, length, chunked, expects = 0, 0, False, False
    for name, value in headers:
        lower = name.lower()
        if lower == b"host":
            hosts += 1
        elif lower == b"content-length":
            length = int(value)
        elif lower == b"transfer-encoding":
            if value.lower() != b"chunked" or version == "1.0":
                raise malformed("the only transfer coding served here is chunked, over HTTP/1.1")
            chunked = True
        elif lower == b"expect":
            expects = value.lower() == b"100-continue"
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        raise malformed("a request has exactly one Host")
    return Head(
        method=method,
        path=origin_form(target),
        headers=headers,
        http_1_0=version == "1.0",
        keep_alive=keep_alive and version == "1.1",
        expects_continue=expects and version == "1.1",
        length=None if chunked else length,
    )


def origin_form(target: bytes) -> str:
    """Path and query. An absolute target's authority is left out, as RFC 9112 3.2.2 has it. Raises Rejected(400)."""
    if b"#" in target:  # some servers cut it off, others do not
        raise malformed("a request's target has no fragment")
    if not target.startswith(b"/") and b"://" in target:
        rest = target.split(b"://", 1)[1]
        authority = _AUTHORITY.match(rest)
        assert authority is not None
        rest = rest[authority.end() :]
        target = rest if rest.startswith(b"/") else b"/" + rest
    return target.decode("ascii", "replace")
