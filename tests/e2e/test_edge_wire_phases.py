"""A request told by its records: when the client leaves in each phase of it, and which trace and times they carry."""

import asyncio
from collections.abc import Callable

import pytest

from tests.fixtures.edge import Edge, edge, start_edge
from tests.fixtures.talk import FIRST_TURN, PLAIN, STREAMED
from tests.fixtures.upstream import Turn, message_json, stream, upstream
from tests.fixtures.wire import RawClient, post

pytestmark = pytest.mark.alone

__all__ = ["edge", "start_edge", "upstream"]  # fixtures

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PHASES = {
    "before the head": b"",
    "within the head": b"HTTP/1.1 200 OK\r\nContent-Type: text/event-str",
    "before the body": b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    "within a stream": stream(FIRST_TURN)[:900],
    "within JSON": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n"
    + message_json()[:40],
}


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("leave", [RawClient.close, RawClient.reset])
async def test_a_client_that_leaves_closes_the_provider_s_connection_within_100_ms(
    edge: Edge, phase: str, leave: Callable[[RawClient], None]
) -> None:
    answering, closed = asyncio.Event(), asyncio.Event()

    async def script(turn: Turn) -> None:
        await turn.write(PHASES[phase])
        answering.set()
        await turn.hung_up()
        closed.set()

    edge.upstream.script = script
    async with RawClient(edge.port) as client:
        client.send(post("/v1/messages", PLAIN if "JSON" in phase else STREAMED))
        await asyncio.wait_for(answering.wait(), 5)
        await asyncio.sleep(0.05)  # the edge has read what there is; nothing tells of it
        leave(client)
        await asyncio.wait_for(closed.wait(), 0.1)
    [usage] = await edge.usage()
    assert (usage.kind, usage.outcome, usage.estimated) == ("settled", "client_gone", True)
    assert (await edge.requests())[0].outcome == "client_gone"


async def test_the_records_carry_the_client_s_trace_and_the_times(edge: Edge) -> None:
    async def script(turn: Turn) -> None:
        await asyncio.sleep(0.05)
        await turn.start_stream()
        await turn.chunk(FIRST_TURN[:700])
        await asyncio.sleep(0.05)
        await turn.chunk(FIRST_TURN[700:])
        await turn.write(b"0\r\n\r\n")

    edge.upstream.script = script
    async with RawClient(edge.port) as client:
        client.send(post("/v1/messages", STREAMED, [("Traceparent", f"00-{TRACE}-{CALLER}-00")]))
        assert (await client.answer()).body == FIRST_TURN
    [usage], [request] = await edge.usage(), await edge.requests()
    assert (usage.trace_id, usage.trace_sampled) == (TRACE, False)
    assert (request.trace_id, request.parent_span_id, request.trace_sampled) == (TRACE, CALLER, False)
    assert request.received_at <= usage.sent_at <= usage.closed_at <= request.closed_at
    assert usage.sent_at + 100_000 <= usage.closed_at
    assert 45 <= usage.ttft_ms <= usage.duration_ms - 45
    assert 45 <= request.ttft_ms <= request.duration_ms - 45
    assert request.reserve_us >= 0
