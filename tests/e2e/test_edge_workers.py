"""EDGE_WORKERS: several workers under one parent, as in a container."""

import asyncio
import os
import re
import signal
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.test_edge_wire_process import edge_process, listening, prepare, stored
from tests.fixtures.broker import Broker
from tests.fixtures.talk import FIRST_TURN, STREAMED, ask
from tests.fixtures.upstream import Turn, Upstream, stream, upstream
from tests.fixtures.waiting import until
from tests.fixtures.wire import RawClient, post

__all__ = ["upstream"]  # a fixture


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}/exe").exists()]


async def get(port: int, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/{path}") as answer:
        return answer.status, await answer.text()


async def test_workers_share_a_port_are_started_again_and_drain_together(tmp_path: Path, upstream: Upstream) -> None:
    upstream.script = lambda turn: turn.write(stream(FIRST_TURN))
    broker = Broker(tmp_path / "nats")
    broker.start()
    try:
        await prepare(broker, upstream)
        async with edge_process(broker, tmp_path, workers=2) as (parent, ports):
            pids = children(parent.pid)
            assert len(pids) == 2
            assert (await get(ports["http"], "readyz"))[0] == 200
            for _ in range(20):
                assert (await ask(ports["edge"])).body == FIRST_TURN
            assert await served(ports["http"]) == 20.0

            os.kill(pids[0], signal.SIGKILL)
            await until(lambda: children(parent.pid) != pids and len(children(parent.pid)) == 2)

            async def is_ready() -> bool:
                return (await get(ports["http"], "readyz"))[0] == 200

            await until(is_ready, 20)
            for _ in range(4):
                assert (await ask(ports["edge"])).body == FIRST_TURN
            assert len({path.read_text() for path in (tmp_path / "edge").rglob("edge-id")}) == 2

            await ends_a_stream(parent, ports["edge"], upstream)
        assert await stored(broker, "USAGE") == 25
        async with edge_process(broker, tmp_path, workers=1) as (parent, ports):
            await until(lambda: len(children(parent.pid)) == 2, what="the worker that has left a spool to run again")
    finally:
        broker.stop()


async def served(port: int) -> float:
    """Requests, over all workers; each says its own."""
    families = {family.name: family for family in text_string_to_metric_families((await get(port, "metrics"))[1])}
    samples = families["sluicegate_edge_requests"].samples
    assert {sample.labels["worker"] for sample in families["sluicegate_edge_connections"].samples} == {"1", "2"}
    return sum(sample.value for sample in samples)


async def ends_a_stream(parent: asyncio.subprocess.Process, port: int, upstream: Upstream) -> None:
    gate = asyncio.Event()

    async def script(turn: Turn) -> None:
        await turn.start_stream()
        await turn.chunk(FIRST_TURN[:700])
        await gate.wait()
        await turn.chunk(FIRST_TURN[700:])
        await turn.write(b"0\r\n\r\n")

    upstream.script = script
    pids = children(parent.pid)
    async with RawClient(port) as client:
        client.send(post("/v1/messages", STREAMED))
        await client.until_body(FIRST_TURN[:300])
        parent.send_signal(signal.SIGTERM)
        await until(lambda: not listening(port))
        gate.set()
        answer = await client.answer()
    assert (answer.body, answer.whole) == (FIRST_TURN, True)
    assert await asyncio.wait_for(parent.wait(), 15) == 0
    assert not alive(pids)


async def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path, upstream: Upstream) -> None:
    broker = Broker(tmp_path / "nats")
    broker.start()
    try:
        await prepare(broker, upstream)
        async with edge_process(broker, tmp_path, workers=2) as (parent, _):
            pids = children(parent.pid)
            parent.kill()
            await until(lambda: not alive(pids), 20)
    finally:
        broker.stop()


async def test_a_parent_whose_workers_cannot_start_says_so_and_ends(tmp_path: Path, upstream: Upstream) -> None:
    broker = Broker(tmp_path / "nats")
    broker.start()
    try:
        await prepare(broker, upstream)
        with pytest.raises(FileNotFoundError, match=r"ready\.json"):  # it never came
            async with edge_process(broker, tmp_path, workers=2, tls_cert_file="missing"):
                pass
    finally:
        broker.stop()
    assert re.search(r"worker \d ended with 1 before it was ready", (tmp_path / "edge.log").read_text())
