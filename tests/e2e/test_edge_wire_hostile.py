"""Clients and providers that lie, stall or speak something else: each alone is harmed, and nobody's bytes meet another's."""

import asyncio
import gzip
import json
from contextlib import suppress

import pytest

from tests.fixtures.edge import Edge, Start, edge, start_edge
from tests.fixtures.talk import FIRST_TURN, PLAIN, STREAMED, ask
from tests.fixtures.upstream import STREAM_HEAD, Turn, chunk, message_json, plain, says, stream, upstream
from tests.fixtures.waiting import until
from tests.fixtures.wire import RawClient, post

__all__ = ["edge", "start_edge", "upstream"]  # fixtures

HEAD = b"POST /v1/messages HTTP/1.1\r\nHost: a\r\nx-api-key: vk-test\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
TLS_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(range(190))


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (TLS_HELLO, 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 400),
        (b"SSH-2.0-OpenSSH_9.6\r\n", 400),
        (b"\x05\x01\x00", 400),
        (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (b"TRACE /v1/messages HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (HEAD + b"Content-Length: 5 5\r\n\r\nhello", 400),
        (HEAD + b"Content-Length: 5\x0b\r\n\r\nhello", 400),
        (HEAD + b"Content-Length: -5\r\n\r\n", 400),
        (HEAD + b"Content-Length: \xef\xbc\x95\r\n\r\nhello", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n', 400),
        (HEAD + b"Transfer_Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n", 400),
        (CHUNKED + b"5;\0\r\nhello\r\n0\r\n\r\n", 400),
        (CHUNKED + b"5;a\rb\r\nhello\r\n0\r\n\r\n", 400),
        (CHUNKED + b"5;a\nhello\r\n0\r\n\r\n", 400),
        (CHUNKED + b'5;a="\r\n"\r\nhello\r\n0\r\n\r\n', 400),
        (CHUNKED + b"5\r\nhelloGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (CHUNKED + b"0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"X: " + b"y" * 100_000, 431),
        (HEAD + b"X: y\r\n" * 10_000 + b"\r\n", 431),
        (b"POST /" + b"x" * 100_000, 431),
    ],
)
async def test_what_is_no_request_is_refused_once_and_never_sent_on(edge: Edge, data: bytes, status: int) -> None:
    async with RawClient(edge.port) as client:
        client.send(data)
        answer = await client.answer()
    assert (answer.status, answer.whole) == (status, True)
    assert edge.upstream.requests == []
    assert (await ask(edge.port, PLAIN)).status == 200, "the next client is served"


@pytest.mark.parametrize("body", [PLAIN, STREAMED])
async def test_a_client_of_http_1_0_is_answered_without_chunks_and_closed(edge: Edge, body: bytes) -> None:
    """It may ask for keep-alive as it likes."""
    content = FIRST_TURN if body is STREAMED else message_json()
    edge.upstream.script = says(stream(content) if body is STREAMED else plain(content))
    asked = post("/v1/messages", body, [("Connection", "keep-alive")]).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    async with RawClient(edge.port) as client:
        client.send(asked + asked)
        head, _, got = (await client.ended()).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert got == content
    assert len(edge.upstream.requests) == 1


BAD_ANSWERS = {
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n{}",
    "a length with a sign": b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n{}",
    "two lengths in one": b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\n{}",
    "a length that overflows": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n{}",
    "a header behind a bare CR": b"HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\nContent-Length: 2\r\n\r\n{}",
    "a header behind a bare LF": b"HTTP/1.1 200 OK\nX: a\nContent-Length: 2\n\n{}",
    "a folded header": b"HTTP/1.1 200 OK\r\nX: a\r\n Y: b\r\nContent-Length: 2\r\n\r\n{}",
    "a NUL in a header": b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\n{}",
    "a space in a name": b"HTTP/1.1 200 OK\r\nX Y: b\r\nContent-Length: 2\r\n\r\n{}",
    "a space before the colon": b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\n{}",
    "HTTP/2": b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "TLS": TLS_HELLO,
    "a chunk with bare LF": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\n{}\n0\n\n",
    "a chunk that is too short": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n",
    "less than its length": b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n{}",
}


@pytest.mark.parametrize("what", BAD_ANSWERS)
async def test_an_answer_that_cannot_be_framed_becomes_a_refusal(edge: Edge, what: str) -> None:
    async def script(turn: Turn) -> None:
        await turn.write(BAD_ANSWERS[what])
        turn.writer.close()

    edge.upstream.script = script
    answer = await ask(edge.port, PLAIN)
    assert (answer.status, answer.whole, json.loads(answer.body)["error"]["type"]) == (503, True, "api_error")
    assert all(name.lower() != b"set-cookie" for name, _ in answer.headers)
    edge.upstream.script = says(plain(message_json()))
    assert (await ask(edge.port, PLAIN)).body == message_json()


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
@pytest.mark.parametrize("framing", [b"Content-Length: 5", b"Transfer-Encoding: chunked", b"X: y"])
async def test_an_answer_without_a_body_has_none_whatever_follows(edge: Edge, status: bytes, framing: bytes) -> None:
    """What follows would be the next request's answer."""
    forged = plain(b'{"forged":true}')
    edge.upstream.script = says(b"HTTP/1.1 %b\r\n%b\r\n\r\n%b" % (status, framing, forged))
    async with RawClient(edge.port) as client:
        client.send(post("/v1/messages", PLAIN))
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert head.split(b" ")[1] == status[:3]
        edge.upstream.script = says(plain(message_json()))
        client.send(post("/v1/messages", PLAIN))
        assert (await client.answer()).body == message_json()


@pytest.mark.parametrize("early", [b"413 Payload Too Large", b"429 Too Many Requests"])
async def test_an_answer_that_comes_before_the_body_was_read_arrives(edge: Edge, early: bytes) -> None:
    body = b'{"type":"error","error":{"type":"request_too_large","message":"early"}}'

    served = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(plain(body, early.decode()))
        with suppress(ConnectionError):
            while await reader.read(2**16):
                """The rest of the request: its sender hangs up when it has the answer."""
        writer.transport.abort()
        served.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    await edge.move_provider(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    large = PLAIN[:-4] + b"x" * (8 * 1024 * 1024) + PLAIN[-4:]
    try:
        answer = await ask(edge.port, large)
    finally:
        server.close()
        await asyncio.wait_for(served.wait(), 10)
    assert (answer.status, answer.body) == (int(early[:3]), body)


async def test_a_head_that_comes_byte_by_byte_is_an_answer(edge: Edge) -> None:
    async def script(turn: Turn) -> None:
        for byte in STREAM_HEAD:
            await turn.write(bytes([byte]))
            await asyncio.sleep(0)
        await turn.write(chunk(FIRST_TURN) + b"0\r\n\r\n")

    edge.upstream.script = script
    assert (await ask(edge.port)).body == FIRST_TURN


async def test_a_provider_that_dribbles_its_head_is_given_up_with_a_refusal(start_edge: Start) -> None:
    """Bytes that are no answer do not count as being heard of."""

    async def script(turn: Turn) -> None:
        for byte in STREAM_HEAD * 100:
            await turn.write(bytes([byte]))
            await asyncio.sleep(0.05)

    async with start_edge(heartbeat_seconds=0.1, upstream_idle_timeout_seconds=0.5) as edge:
        edge.upstream.script = script
        answer = await ask(edge.port)
        assert (answer.status, answer.whole) == (503, True)
        await until(lambda: edge.upstream.open == 0)


async def test_an_answer_that_is_compressed_unasked_passes_as_it_is_and_is_estimated(edge: Edge) -> None:
    data = gzip.compress(message_json())
    edge.upstream.script = says(plain(data, "200 OK", b"Content-Encoding: gzip"))
    answer = await ask(edge.port, PLAIN)
    assert (answer.status, answer.body, answer.header("content-encoding")) == (200, data, b"gzip")
    [usage] = await edge.usage()
    assert usage.estimated
    assert sum(line.quantity for line in usage.lines) > 0


async def test_a_stream_that_is_compressed_unasked_passes_as_it_is_and_is_estimated(edge: Edge) -> None:
    """No event is seen in it, so none is put in."""
    data = gzip.compress(FIRST_TURN)
    head = STREAM_HEAD.replace(b"Cache-Control: no-cache", b"Content-Encoding: gzip")
    edge.upstream.script = says(head + chunk(data) + b"0\r\n\r\n")
    answer = await ask(edge.port)
    assert (answer.status, answer.body, answer.whole) == (200, data, True)
    assert (await edge.usage())[0].estimated
