"""What one key, one client or one answer may take of a worker."""

import asyncio
import json
from contextlib import AsyncExitStack

import pytest

from services.edge.app import SERVER
from tests.fixtures.edge import Start, start_edge
from tests.fixtures.owner import denied
from tests.fixtures.talk import FIRST_TURN, PLAIN, STREAMED, ask
from tests.fixtures.upstream import Turn, upstream
from tests.fixtures.waiting import until
from tests.fixtures.wire import RawClient, post

__all__ = ["start_edge", "upstream"]  # fixtures


async def breaks(turn: Turn) -> None:
    turn.reset()


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
async def test_a_key_with_too_many_requests_is_refused_in_its_own_words_before_anything_is_asked(
    start_edge: Start, path: str
) -> None:
    gate = asyncio.Event()

    async def script(turn: Turn) -> None:
        await turn.start_stream()
        await gate.wait()
        await turn.chunk(FIRST_TURN)
        await turn.write(b"0\r\n\r\n")

    async with start_edge(max_connections_per_key=3) as edge, AsyncExitStack() as stack:
        edge.upstream.script = script
        clients = [await stack.enter_async_context(RawClient(edge.port)) for _ in range(3)]
        for client in clients:
            client.send(post("/v1/messages", STREAMED))
        await until(lambda: len(edge.upstream.requests) == 3)
        answer = await ask(edge.port, PLAIN, path)
        error = json.loads(answer.body)
        assert (answer.status, error["error"]["type"], answer.header("retry-after")) == (429, "rate_limit_error", b"1")
        assert answer.header("x-should-retry") is None
        assert len({reserve.rid for reserve in edge.owner.reserves}) == 3  # each is asked again on a busy machine
        assert len(edge.upstream.requests) == 3
        gate.set()
        for client in clients:
            assert (await client.answer()).body == FIRST_TURN
        edge.upstream.script = breaks
        assert (await ask(edge.port, PLAIN, path)).status == 503, "its places are free again"
        crowded = [record for record in await edge.requests(5) if record.reason == "key_crowded"]
    assert [(record.verdict, record.status) for record in crowded] == [("rejected", 429)]


async def test_places_are_given_back_however_a_request_ends(start_edge: Start) -> None:
    async with start_edge(max_connections_per_key=1) as edge:
        edge.owner.decide = lambda asked: denied()
        assert (await ask(edge.port)).status == 429
        edge.owner.decide = None
        async with RawClient(edge.port) as client:
            client.send(post("/v1/messages", STREAMED))
            await until(lambda: len(edge.owner.reserves) == 2)
            client.reset()
        await until(lambda: edge.owner.withdrawn)
        assert (await ask(edge.port, b"not json")).status == 400
        assert (await ask(edge.port, PLAIN, "/v1/models")).status != 429


async def test_bodies_of_all_clients_together_take_no_more_than_they_may(start_edge: Start) -> None:
    """What is refused holds nothing; what has ended has given its room back, whichever way it ended."""
    body = PLAIN[:-1] + b',"metadata":{"user_id":"' + b"x" * 300_000 + b'"}}'
    async with start_edge(max_request_bytes_in_all=1_000_000) as edge, AsyncExitStack() as stack:
        room = edge.app[SERVER].room
        clients = [await stack.enter_async_context(RawClient(edge.port)) for _ in range(3)]
        for client in clients:
            client.send(post("/v1/messages", body)[:-1])
        await until(lambda: room.taken >= 3 * 300_000)
        stranger = await stack.enter_async_context(RawClient(edge.port))
        stranger.send(post("/v1/messages", body, key="of nobody"))
        refused = await stranger.answer()
        error = json.loads(refused.body)["error"]
        assert (refused.status, refused.header("retry-after"), "retry" in error["message"]) == (503, b"1", True)
        assert (await ask(edge.port, PLAIN)).status == 200, "a small one has room"
        clients[0].reset()
        await until(lambda: room.taken < 3 * 300_000)
        assert (await ask(edge.port, body)).status == 200
        for client in clients[1:]:
            client.send(b"}")
            assert (await client.answer()).status == 200
        await until(lambda: room.taken == 0)
