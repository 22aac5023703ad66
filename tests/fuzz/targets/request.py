"""What clients send. The reader accepts only what h11 accepts too, and means the same by it.

So does what goes upstream: exactly one request, with the same body. However the bytes are split.
"""

import re

import h11
import msgspec

from services.edge.core.headers import request_headers_for_upstream
from services.edge.handlers.attempt import request_head
from services.edge.handlers.request import Limits, Request, RequestReader
from services.edge.stores.upstream import origin_of
from shared.errors import Rejected
from tests.fixtures.played import PlayedHost, connect, played_loop
from tests.fixtures.strict import Answers, Asked, Requests
from tests.fuzz.splits import split

LIMITS = Limits(body_bytes=1 << 20)
ORIGIN = origin_of("http://provider.test:8000/base")
CREDENTIAL = (b"x-api-key", b"sk-provider")
_LINE = re.compile(rb"\A([A-Z-]+) +(\S+) +(?:HTTP|RTSP|ICE)/")
"""What our parser reads as h11 does not: more than one space, and two protocols of the same framing."""
_ZEROS = b"0" * 15
"""To h11 no chunk's size has more than twenty digits."""


class Read(msgspec.Struct):
    """What came of bytes. status: of the refusal, 0 without one."""

    requests: list[Request] = []
    status: int = 0


def check(data: bytes) -> None:
    whole = read([data])
    assert read(split(data)) == whole
    rest: bytes | None = data
    for request in whole.requests:
        rest = None if rest is None else same_to_another(request, rest)
        goes_up_as_one(request)
    answered_in_order(data, whole)


def read(parts: list[bytes]) -> Read:
    found = Read()
    reader = RequestReader(LIMITS, lambda head: None, found.requests.append)
    try:
        for part in parts:
            reader.feed(part)
    except Rejected as error:
        assert error.status in {400, 413, 431}
        found.status = error.status
    return found


def same_to_another(request: Request, data: bytes) -> bytes | None:
    """h11 reads this request at the beginning of the data; returns what is behind it, None when that cannot be told."""
    data = _LINE.sub(rb"\1 \2 HTTP/", data.lstrip(b"\r\n"), count=1)
    other = Requests()
    other.feed(data)
    try:
        asked = other.next()
    except h11.RemoteProtocolError as error:
        assert "illegal chunk header" in str(error) and _ZEROS in data, (
            f"we see a request, another reader does not: {error}"
        )
        return None
    assert asked is not None, "we see a whole request, another reader does not"
    assert asked.method.decode() == request.head.method
    assert asked.body == request.body
    assert asked.headers == [  # h11 writes this one small
        (name, value.lower() if name.lower() == b"transfer-encoding" else value) for name, value in request.head.headers
    ]
    assert request.head.path.encode() == (asked.target if asked.target[:1] in (b"/", b"*") else absolute(asked.target))
    return other.rest


def absolute(target: bytes) -> bytes:
    """The path and query of an absolute target, by its grammar."""
    found = re.fullmatch(rb"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*([^?#]*)(\?[^#]*)?(#.*)?", target)
    assert found, target
    return (found[1] or b"/") + (found[2] or b"") + (found[3] or b"")


def goes_up_as_one(request: Request) -> None:
    head = request.head
    if head.path == "*" or head.method == "HEAD":
        return
    passed = request_headers_for_upstream(head.headers, CREDENTIAL)
    sent = request_head(ORIGIN, head.method, head.path, passed, len(request.body)) + request.body
    other = Requests()
    other.feed(sent)
    asked = other.next()
    assert asked is not None and other.rest == b"", sent
    length = [(b"Content-Length", b"%d" % len(request.body))] if request.body or head.method != "GET" else []
    wanted = [(b"Host", ORIGIN.authority), *passed, *length]
    target = ORIGIN.prefix + head.path.encode()
    assert asked == Asked(method=head.method.encode(), target=target, headers=wanted, body=request.body)
    assert sum(name.lower() == b"x-api-key" for name, _ in asked.headers) == 1


def answered_in_order(data: bytes, whole: Read) -> None:
    """The connection answers each request with its own body, and a refusal once, at the end."""
    with played_loop() as loop:
        host = PlayedHost(LIMITS)
        connection, transport = connect(host)
        for part in split(data):
            if not transport.closed:
                connection.data_received(part)
                loop.turn()
        connection.connection_lost(None)
        loop.turn()
    served = len(host.requests)
    assert host.requests == whole.requests[:served]
    assert len(host.refused) <= 1
    assert transport.closed or transport.ended or served == len(whole.requests)
    answers = Answers()
    answers.feed(bytes(transport.sent))
    for request in host.requests:
        answers.asked(request.head.method)
        told = answers.next()
        assert told is not None and told.status == 200
        assert told.body == (b"" if request.head.method == "HEAD" else request.body)
    if host.refused:
        answers.asked("GET")
        told = answers.next()
        assert told is not None and told.status == host.refused[0].status
        assert answers.rest == b""
