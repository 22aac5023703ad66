"""No attempt is charged that was not sent, none is free that was, and none is sent twice unnoticed."""

import asyncio
import json
import os
import time
from pathlib import Path

import msgspec
import pytest

from services.edge.app import SPOOL
from services.edge.handlers import attempt, relay
from services.edge.stores import spool_folder
from tests.fixtures.edge import Edge, Start, edge, start_edge
from tests.fixtures.exchanges import event
from tests.fixtures.owner import granted
from tests.fixtures.upstream import Turn, message_json, plain, says, upstream
from tests.fixtures.waiting import until
from tests.fixtures.wire import RawClient, post

__all__ = ["edge", "start_edge", "upstream"]  # fixtures

ASK = {"model": "claude-sonnet-5-5", "max_tokens": 1000, "messages": [{"role": "user", "content": "hi"}]}
STREAMED = json.dumps(ASK | {"stream": True}).encode()
PLAIN = json.dumps(ASK).encode()


async def ask(edge: Edge) -> int:
    async with RawClient(edge.port) as client:
        client.send(post("/v1/messages", PLAIN))
        return (await client.answer()).status


async def test_a_client_that_leaves_while_its_start_is_written_costs_nothing(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await ask(edge) == 200  # leaves a connection to the provider that can be had without waiting

    def slow(fd: int) -> None:
        time.sleep(0.3)
        os.fdatasync(fd)

    monkeypatch.setattr(edge.app[SPOOL]._log, "_sync", slow)
    async with RawClient(edge.port) as client:
        client.send(post("/v1/messages", PLAIN))
        await until(lambda: len(edge.owner.reserves) == 2)
        client.reset()
        usage = (await edge.usage(2))[1]
        assert (usage.kind, usage.outcome, usage.lines) == ("void", "not_sent", ())
        assert (await edge.requests(2))[1].outcome == "client_gone"
        await until(lambda: edge.owner.withdrawn == [usage.rid])
    assert len(edge.upstream.requests) == 1


async def test_a_provider_that_we_hang_up_on_for_its_silence_has_read_the_prompt_all_the_same(
    start_edge: Start,
) -> None:
    async def script(turn: Turn) -> None:
        await turn.hung_up()

    async with start_edge(heartbeat_seconds=0.1, upstream_idle_timeout_seconds=0.3) as edge:
        edge.upstream.script = script
        assert await ask(edge) == 503
        [usage] = await edge.usage()
    assert (usage.kind, usage.outcome, usage.estimated) == ("settled", "upstream_broken", True)
    assert {line.meter for line in usage.lines} == {"input", "output"}


async def test_a_connection_that_dies_late_is_not_taken_for_a_stale_one(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The provider had the request for longer than a close takes to arrive: sent again, it could be billed twice."""
    monkeypatch.setattr(attempt, "STALE_SECONDS", 0.1)
    edge.upstream.script = says(plain(message_json()))
    assert await ask(edge) == 200

    async def script(turn: Turn) -> None:
        await asyncio.sleep(0.3)
        turn.reset()

    edge.upstream.script = script
    assert await ask(edge) == 503
    assert len(edge.upstream.requests) == 2
    assert len(await edge.usage(2)) == 2


async def test_what_a_stream_has_shown_survives_a_kill_but_for_the_last_second(
    start_edge: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "PROGRESS_SECONDS", 0.05)
    done = asyncio.Event()

    async def script(turn: Turn) -> None:
        await turn.start_stream()
        counts = {"input_tokens": 10, "output_tokens": 1}
        await turn.chunk(event("message_start", message={"model": "claude-sonnet-5-5", "usage": counts}))
        while not done.is_set():
            delta = {"type": "text_delta", "text": "word " * 20}
            await turn.chunk(event("content_block_delta", index=0, delta=delta))
            await asyncio.sleep(0.02)

    def remembered() -> int:
        left = spool_folder.read(tmp_path / "edge", spool_folder.boot_id())
        found = [unfinished.progressed for unfinished in left.unfinished if unfinished.progressed]
        return sum(line.quantity for one in found for line in one.lines if line.meter == "output")

    async with start_edge() as edge:
        edge.upstream.script = script
        async with RawClient(edge.port) as client:
            client.send(post("/v1/messages", STREAMED))
            await until(lambda: remembered() > 300)
        done.set()


async def test_pings_before_the_answer_begins_give_no_money_back(start_edge: Start) -> None:
    begin = asyncio.Event()

    async def script(turn: Turn) -> None:
        await turn.start_stream()
        await turn.chunk(event("ping"))
        await begin.wait()
        counts = {"input_tokens": 10, "output_tokens": 1}
        await turn.chunk(event("message_start", message={"model": "claude-sonnet-5-5", "usage": counts}))
        await turn.hung_up()

    async with start_edge(heartbeat_seconds=0.05) as edge:
        edge.upstream.script = script
        async with RawClient(edge.port) as client:
            client.send(post("/v1/messages", STREAMED))
            await client.until_body(b"ping")
            await asyncio.sleep(0.2)  # several heartbeats
            begin.set()
            await until(lambda: edge.owner.trueups)
        assert [told.input_tokens for told in edge.owner.trueups] == [10]


async def test_input_above_its_bound_cuts_a_limited_stream_earlier(edge: Edge) -> None:
    """Otherwise a prompt of dense text would be paid for beside the whole output, above the cap."""
    small = msgspec.structs.replace(granted(output_tokens=600), held_input_tokens=1_000, held_nano_usd=4_000)
    edge.owner.decide = lambda ask: msgspec.structs.replace(small, held_input_nano_usd=1_000)

    async def script(turn: Turn) -> None:
        await turn.start_stream()
        counts = {"input_tokens": 3_000, "output_tokens": 1}
        await turn.chunk(event("message_start", message={"model": "claude-sonnet-5-5", "usage": counts}))
        for _ in range(1_000):
            delta = {"type": "text_delta", "text": "word " * 5}
            await turn.chunk(event("content_block_delta", index=0, delta=delta))
            await asyncio.sleep(0)

    edge.upstream.script = script
    async with RawClient(edge.port) as client:
        client.send(post("/v1/messages", STREAMED))
        assert b"billing_error" in (await client.answer()).body
    [usage] = await edge.usage()
    assert usage.outcome == "cut"
    assert sum(line.quantity for line in usage.lines if line.meter == "output") <= 200
