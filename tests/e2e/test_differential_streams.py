"""Every recorded stream cut in two at every byte, in single bytes, and broken off at every byte, through a whole edge.

What comes out is read by a parser of the tests' own. All over sockets: many at a time, on connections that are kept.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.fixtures.edge import Edge, edge, start_edge
from tests.fixtures.exchanges import STREAMS, parse
from tests.fixtures.talk import ASK, captured
from tests.fixtures.upstream import CAPTURES, STREAM_HEAD, Turn, chunk, plain, says, upstream
from tests.fixtures.wire import Answer, RawClient, post

__all__ = ["edge", "start_edge", "upstream"]  # fixtures

AT_ONCE = 32
END = b"0\r\n\r\n"
LAST = {name: stream.rfind(b"event: ") for name, stream in STREAMS.items()}
"""Where the event begins that waits for the spool."""
GOVERNED = [path for path in sorted(CAPTURES.glob("[01]*-[0-9]*.json")) if "/v1/messages?" in path.read_text()]
Judge = Callable[[int, Answer], None]


async def exchanges(edge: Edge, count: int, play: Callable[[Turn, int], Awaitable[None]], judge: Judge) -> None:
    """One exchange for each number below count. play: the provider's part in it. judge: what the client got."""

    async def script(turn: Turn) -> None:
        await play(turn, int(turn.request.header("x-case") or b""))

    async def client(numbers: AsyncIterator[int]) -> None:
        async with RawClient(edge.port) as sending:
            async for number in numbers:
                sending.send(post("/v1/messages", ASKED, [("x-case", str(number))]))
                judge(number, await sending.answer(30))

    async def left() -> AsyncIterator[int]:
        for number in remaining:
            yield number

    remaining = iter(range(count))
    edge.upstream.script = script
    await asyncio.gather(*(client(left()) for _ in range(AT_ONCE)))
    assert next(remaining, None) is None


ASKED = json.dumps(ASK | {"stream": True}).encode()


@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_cut_in_two_anywhere_is_the_same(edge: Edge, name: str) -> None:
    """The parts leave the provider as chunks of their own, in writes of their own, so that the edge reads them apart."""
    stream = STREAMS[name]

    async def play(turn: Turn, cut: int) -> None:
        await turn.write(STREAM_HEAD + (chunk(stream[:cut]) if cut else b""))
        await asyncio.sleep(0)
        await turn.write(chunk(stream[cut:]) + END)

    def judge(_: int, answer: Answer) -> None:
        assert (answer.status, answer.body, answer.whole) == (200, stream, True)

    await exchanges(edge, len(stream), play, judge)
    usage = await edge.usage(len(stream))
    assert len({record.provider_usage for record in usage}) == 1
    assert {(record.outcome == "ok", record.estimated) for record in usage} in ({(True, False)}, {(False, True)})


@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_in_single_bytes_is_the_same(edge: Edge, name: str) -> None:
    stream = STREAMS[name]

    async def play(turn: Turn, _: int) -> None:
        await turn.start_stream()
        for at in range(len(stream)):
            await turn.chunk(stream[at : at + 1])
            await asyncio.sleep(0)
        await turn.write(END)

    def judge(_: int, answer: Answer) -> None:
        assert (answer.status, answer.body, answer.whole) == (200, stream, True)

    await exchanges(edge, 8, play, judge)


@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_that_breaks_off_anywhere_is_a_prefix_with_an_end(edge: Edge, name: str) -> None:
    """Broken off by a close, and at every third byte by a reset, which may overtake what was sent before it."""
    stream = STREAMS[name]
    whole = parse(stream)

    async def play(turn: Turn, cut: int) -> None:
        await turn.write(STREAM_HEAD + (chunk(stream[:cut]) if cut else b""))
        if cut % 3 == 0:
            await asyncio.sleep(0)
            turn.reset()
        else:
            turn.writer.close()
        await turn.hung_up()

    def judge(cut: int, answer: Answer) -> None:
        if answer.status == 503:
            assert cut % 3 == 0, "a close loses nothing"
            return
        assert (answer.status, answer.whole) == (200, True), f"framing is broken after {cut} bytes"
        if cut == len(stream) and answer.body == stream:
            return
        check_broken(answer.body, stream[: min(cut, LAST[name])], whole, closed=cut % 3 != 0)

    await exchanges(edge, len(stream) + 1, play, judge)
    usage = await edge.usage(len(stream) + 1)
    assert len({record.rid for record in usage}) == len(stream) + 1
    assert all(record.estimated for record in usage if not record.stop_reason and record.outcome == "upstream_broken")


def check_broken(body: bytes, sent: bytes, whole: list[tuple[str, bytes]], *, closed: bool) -> None:
    """Every event that was complete, no event changed, what was cut made a ping that nobody reads, an error as the end."""
    complete = sent[: sent.rfind(b"\n\n") + 2] if b"\n\n" in sent else b""
    events = parse(body)
    name, data = events.pop()
    assert (name, json.loads(data)["error"]["type"]) == ("error", "api_error")
    events = spoken(events)
    assert events == spoken(whole)[: len(events)]
    if closed:
        assert body.startswith(complete)
        assert len(events) == len(spoken(parse(complete)))


def spoken(events: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    return [event for event in events if event[0] != "ping"]


@pytest.mark.parametrize("path", GOVERNED, ids=lambda path: path.stem)
async def test_a_captured_exchange_is_the_same_through_the_edge(edge: Edge, path: Path) -> None:
    """Each recorded request with its recorded answer."""
    target, headers, body = captured(path)
    streamed, answer = answered(path)
    edge.upstream.script = says(STREAM_HEAD + chunk(answer) + END if streamed else plain(answer))
    async with RawClient(edge.port) as client:
        client.send(post(target, body, headers))
        got = await client.answer()
    assert (got.status, got.body, got.whole) == (200, answer, True)
    [sent] = edge.upstream.requests
    assert sent.body == body


def answered(path: Path) -> tuple[bool, bytes]:
    """Whether the recorded answer streams, and its bytes."""
    if path.stem in STREAMS:
        return True, STREAMS[path.stem]
    return False, json.dumps(json.loads(path.read_text())["response"]["body"]).encode()
