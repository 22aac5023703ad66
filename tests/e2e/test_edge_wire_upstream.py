"""Providers that misbehave on the connection: what they can cost is bounded."""

import asyncio
from contextlib import suppress
from typing import cast

import pytest

from services.edge.stores.upstream import Head, UpstreamPool, origin_of
from tests.fixtures.edge import Edge, edge, start_edge
from tests.fixtures.upstream import Turn, plain, upstream
from tests.fixtures.waiting import until
from tests.fixtures.wire import RawClient, post

__all__ = ["edge", "start_edge", "upstream"]  # fixtures

PLAIN = b'{"model": "claude-sonnet-5-5", "max_tokens": 1000, "messages": [{"role": "user", "content": "hi"}]}'


class Heard:
    """Receives an answer; `ends` is what it was told at its end."""

    def __init__(self) -> None:
        self.ends: list[str] = []

    def head(self, head: Head) -> None:
        assert head.status == 413

    def data(self, data: bytes) -> None:
        assert data

    def ended(self) -> None:
        self.ends.append("ended")

    def lost(self, reason: str) -> None:
        self.ends.append(reason)


@pytest.mark.parametrize(
    ("start", "again"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-Name: value\r\n" * 1000),
        (b"HTTP/1.1 200 OK\r\nX-Name: ", b"value" * 1000),
        (b"HTTP/1.1 200 ", b"reason" * 1000),
        (b"", b"HTTP/1.1 102 Processing\r\n\r\n" * 1000),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX-Name: ", b"value" * 1000),
    ],
)
async def test_an_answer_whose_head_never_ends_is_given_up(edge: Edge, start: bytes, again: bytes) -> None:
    """Else one upstream that has lost its mind takes all the memory there is."""

    async def script(turn: Turn) -> None:
        turn.writer.write(start)
        with suppress(ConnectionError):
            while not turn.writer.is_closing():
                await turn.write(again)

    edge.upstream.script = script
    async with RawClient(edge.port) as client:
        client.send(post("/v1/messages", PLAIN))
        got = await client.answer()
    assert (got.status, got.whole) == (503, True)


async def test_an_upstream_that_answers_early_and_stops_reading_costs_no_connection() -> None:
    refusal = b'{"type":"error","error":{"type":"request_too_large","message":"early"}}'
    released = asyncio.Event()

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        cast(asyncio.Transport, writer.transport).pause_reading()
        writer.write(plain(refusal, "413 Too Large"))
        await released.wait()
        writer.transport.abort()

    server = await asyncio.start_server(early, "127.0.0.1", 0)
    pool, whole = UpstreamPool(), Heard()
    connection = await pool.acquire(origin_of(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
    body = b"x" * (16 * 1024 * 1024)
    connection.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body), body, whole)
    await until(lambda: whole.ends)
    await until(lambda: pool.open == 0)
    assert whole.ends == ["ended"]
    connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"", whole)  # lost between being lent and being used
    await until(lambda: len(whole.ends) == 2)
    assert whole.ends == ["ended", "closed"]
    released.set()
    server.close()
