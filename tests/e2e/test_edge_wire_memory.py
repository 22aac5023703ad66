"""What an exchange leaves behind: nothing that waits for the garbage collector, which may come late."""

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest

from services.edge.app import PUBLISHER, SERVER
from tests.fixtures.edge import Edge, edge, start_edge
from tests.fixtures.owner import denied, granted
from tests.fixtures.talk import FIRST_TURN, PLAIN, STREAMED, ask
from tests.fixtures.upstream import STREAM_HEAD, Turn, chunk, message_json, plain, says, stream, upstream
from tests.fixtures.waiting import until
from tests.fixtures.wire import RawClient, post

__all__ = ["edge", "start_edge", "upstream"]  # fixtures


@contextmanager
def cycles() -> Iterator[list[str]]:
    """The types of what only the collector could free of that which was made within; filled in at the end."""
    found = list[str]()
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        found += sorted({f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.garbage})
    finally:
        gc.garbage.clear()
        gc.set_debug(0)
        gc.enable()


def ours(found: list[str]) -> list[str]:
    return [name for name in found if name.startswith(("services.edge", "httptools"))]


async def leave(edge: Edge) -> None:
    """In the middle of a stream."""
    edge.upstream.script = endless
    async with RawClient(edge.port) as client:
        client.send(post("/v1/messages", STREAMED))
        await client.until_body(FIRST_TURN[:200])
        client.close()
        await until(lambda: edge.upstream.open == 0)


async def endless(turn: Turn) -> None:
    await turn.write(STREAM_HEAD + chunk(FIRST_TURN[:800]))
    await turn.hung_up()


async def stop(edge: Edge) -> None:
    """In the middle of a request."""
    async with RawClient(edge.port) as client:
        client.send(post("/v1/messages", STREAMED)[:-5])
        await client.writer.drain()
        client.reset()
    await until(lambda: edge.app[SERVER].connections == 0)


async def whole(edge: Edge) -> None:
    edge.upstream.script = says(plain(message_json()))
    assert (await ask(edge.port, PLAIN)).status == 200


async def streamed(edge: Edge) -> None:
    edge.upstream.script = says(stream(FIRST_TURN))
    assert (await ask(edge.port)).status == 200


async def counted(edge: Edge) -> None:
    edge.upstream.script = says(plain(b'{"input_tokens":8}'))
    assert (await ask(edge.port, PLAIN, "/v1/messages/count_tokens")).status == 200


async def broken(edge: Edge) -> None:
    async def script(turn: Turn) -> None:
        await turn.write(STREAM_HEAD + chunk(FIRST_TURN[:800]))
        turn.reset()

    edge.upstream.script = script
    assert (await ask(edge.port)).whole


async def refused(edge: Edge) -> None:
    edge.owner.decide = lambda ask: denied()
    assert (await ask(edge.port)).status == 429
    edge.owner.decide = lambda ask: granted()


async def malformed(edge: Edge) -> None:
    async with RawClient(edge.port) as client:
        client.send(b"POST / HTTP/1.1\r\n\r\n")
        assert (await client.answer()).status == 400


WAYS = (whole, streamed, counted, broken, refused, malformed, leave, stop)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_an_exchange_leaves_nothing_to_the_collector(edge: Edge, way: Callable[[Edge], Awaitable[None]]) -> None:
    """A body of 32 MB in a circle would stay for minutes."""
    await way(edge)
    with cycles() as found:
        for _ in range(3):
            await way(edge)
        await until(lambda: edge.app[SERVER].connections == 0)
        await edge.app[PUBLISHER].flush()
        await asyncio.sleep(0.05)  # a transport is given up in the next turns of the loop
    assert ours(found) == []
