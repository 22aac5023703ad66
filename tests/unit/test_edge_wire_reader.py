"""The request reader: one meaning or a refusal, whatever the split."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.edge.handlers.request import Head, Limits, Request, RequestReader, origin_form
from shared.errors import Rejected

HOST = b"POST /v1/messages HTTP/1.1\r\nHost: gateway.test\r\n"
CHUNKED = HOST + b"Transfer-Encoding: chunked\r\n\r\n"

REFUSED = {
    "both lengths": HOST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both lengths, the other way round": HOST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths that differ": HOST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "two lengths that agree": HOST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "a list of lengths": HOST + b"Content-Length: 5, 5\r\n\r\nhello",
    "a signed length": HOST + b"Content-Length: +5\r\n\r\nhello",
    "a hexadecimal length": HOST + b"Content-Length: 0x5\r\n\r\nhello",
    "an empty length": HOST + b"Content-Length:\r\n\r\nhello",
    "a length that overflows": HOST + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "a space before the colon": HOST + b"Content-Length : 5\r\n\r\nhello",
    "bare LF after the request line": b"POST / HTTP/1.1\nHost: a\n\n",
    "bare LF after a header": b"POST / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
    "bare LF at the end of the head": b"POST / HTTP/1.1\r\nHost: a\r\n\n",
    "bare CR in a header": b"POST / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
    "a folded header": b"POST / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
    "white space before the first header": b"POST / HTTP/1.1\r\n X: b\r\nHost: a\r\n\r\n",
    "another coding before chunked": HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "another coding after chunked": HOST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "something like chunked": HOST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "identity": HOST + b"Transfer-Encoding: identity\r\n\r\n",
    "chunked twice": HOST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a vertical tab before chunked": HOST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked over HTTP/1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a chunk with bare LF": CHUNKED + b"5\nhello\n0\n\n",
    "a chunk that goes on after its size": CHUNKED + b"5\r\nhelloX0\r\n\r\n",
    "a negative chunk": CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n",
    "a chunk size with 0x": CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n",
    "a chunk size with a space": CHUNKED + b"5 \r\nhello\r\n0\r\n\r\n",
    "a chunk size that overflows": CHUNKED + b"FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
    "a chunk without a size": CHUNKED + b"\r\nhello\r\n0\r\n\r\n",
    "a length in the trailer": CHUNKED + b"5\r\nhello\r\n0\r\nContent-Length: 1\r\n\r\n",
    "a NUL in a header": b"POST / HTTP/1.1\r\nHost: a\x00b\r\n\r\n",
    "a space in a header's name": b"POST / HTTP/1.1\r\nHost: a\r\nX y: b\r\n\r\n",
    "a header without a colon": b"POST / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
    "a control character in the target": b"POST /x\x01y HTTP/1.1\r\nHost: a\r\n\r\n",
    "a fragment in the target": b"POST /v1/messages#x HTTP/1.1\r\nHost: a\r\n\r\n",
    "a fragment in an absolute target": b"POST http://a/v1/messages?b#x HTTP/1.1\r\nHost: a\r\n\r\n",
    "HTTP/0.9": b"GET /x\r\n\r\n",
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an unknown version": b"GET / HTTP/1.2\r\nHost: a\r\n\r\n",
    "an upgrade": b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
    "CONNECT": b"CONNECT b:443 HTTP/1.1\r\nHost: a\r\n\r\n",
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "an unknown method": b"FOO / HTTP/1.1\r\nHost: a\r\n\r\n",
}


class Seen:
    """A reader and what it called back with."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.heads: list[Head] = []
        self.requests: list[Request] = []
        self.reader = RequestReader(limits or Limits(), self.heads.append, self.requests.append)

    def feed(self, data: bytes, *cuts: int) -> None:
        ends = [*sorted(cuts), len(data)]
        for start, end in zip([0, *ends], ends, strict=False):
            if start < end:
                self.reader.feed(data[start:end])


@pytest.mark.parametrize("what", REFUSED)
def test_an_ambiguous_request_is_refused_and_never_handed_on(what: str) -> None:
    seen = Seen()
    with pytest.raises(Rejected) as refused:
        seen.feed(REFUSED[what])
    assert refused.value.status == 400
    assert seen.requests == []


@pytest.mark.parametrize("what", REFUSED)
def test_an_ambiguous_request_is_refused_byte_by_byte_too(what: str) -> None:
    data = REFUSED[what]
    seen = Seen()
    with pytest.raises(Rejected):
        seen.feed(data, *range(len(data)))
    assert seen.requests == []


PIPELINE = (
    HOST
    + b"X-Twice: a\r\nx-twice: b \t\r\nContent-Length: 5\r\n\r\nhello"
    + CHUNKED
    + b"3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\nX-Trailer: 1\r\n\r\n"
    + b"HEAD /anthropic?a=b&c HTTP/1.1\r\nHost: a\r\n\r\n"
)


@given(st.lists(st.integers(0, len(PIPELINE)), max_size=12))
def test_requests_are_the_same_for_every_split(cuts: list[int]) -> None:
    seen = Seen()
    seen.feed(PIPELINE, *cuts)
    first, second, third = seen.requests
    assert (first.body, second.body, third.body) == (b"hello", b"abcde", b"")
    assert first.head.headers[1:3] == [(b"X-Twice", b"a"), (b"x-twice", b"b")]
    assert second.head.headers == [(b"Host", b"gateway.test"), (b"Transfer-Encoding", b"chunked")]
    assert (third.head.method, third.head.path) == ("HEAD", "/anthropic?a=b&c")
    assert not seen.reader.begun


def test_a_body_over_the_limit_is_refused_before_it_is_read() -> None:
    seen = Seen(Limits(body_bytes=10))
    with pytest.raises(Rejected) as refused:
        seen.feed(HOST + b"Content-Length: 11\r\n\r\n")
    assert (refused.value.status, refused.value.code) == (413, "request_too_large")


def test_a_chunked_body_over_the_limit_is_refused_when_it_passes_it() -> None:
    seen = Seen(Limits(body_bytes=10))
    seen.feed(CHUNKED + b"a\r\n0123456789\r\n")
    with pytest.raises(Rejected) as refused:
        seen.feed(b"1\r\nx\r\n")
    assert refused.value.status == 413


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"x" * 2000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 2000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 40 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"never ends " * 200,
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"name-never-ends" * 200,
    ],
)
def test_a_head_over_the_limits_is_refused_with_431(head: bytes) -> None:
    seen = Seen(Limits(header_bytes=1000, headers=20))
    with pytest.raises(Rejected) as refused:
        seen.feed(head, *range(0, len(head), 100))
    assert refused.value.status == 431


@pytest.mark.parametrize(
    "endless",
    [
        b"1\r\na\r\n0\r\nX: " + b"never ends " * 200,
        b"1\r\na\r\n0\r\n" + b"name-never-ends" * 200,
        b"1;" + b"extension" * 200,
        b'1;a="' + b"quoted" * 400,
        b"0" * 2000,
    ],
)
def test_what_is_neither_head_nor_body_is_bounded_too(endless: bytes) -> None:
    """The parser keeps an unfinished trailer to itself, and tells nothing of chunk sizes and extensions."""
    seen = Seen(Limits(header_bytes=1000))
    with pytest.raises(Rejected) as refused:
        seen.feed(CHUNKED + endless, *range(0, len(endless), 100))
    assert refused.value.status == 431
    assert seen.requests == []


def test_a_long_body_in_small_reads_is_not_taken_for_a_head() -> None:
    seen = Seen(Limits(header_bytes=200))
    body = b"".join(b"1\r\n%c\r\n" % byte for byte in b"abcdefghij" * 100)
    seen.feed(CHUNKED + body + b"0\r\n\r\n", *range(0, len(body), 50))
    assert len(seen.requests[0].body) == 1000


@given(st.binary(max_size=300))
def test_noise_is_refused_or_waited_for_and_never_breaks_the_reader(noise: bytes) -> None:
    seen = Seen()
    try:
        seen.feed(noise)
    except Rejected as error:
        assert error.status in {400, 413, 431}


def test_an_absolute_target_means_its_path() -> None:
    assert origin_form(b"http://other.test/v1/messages?beta=true") == "/v1/messages?beta=true"
    assert origin_form(b"http://other.test") == "/"
    assert origin_form(b"http://other.test?a=/v1/messages") == "/?a=/v1/messages", "a path within a query is none"
    assert origin_form(b"/a?b?c") == "/a?b?c"
