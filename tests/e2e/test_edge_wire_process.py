"""The edge as a process of its own: its ready file, its end on SIGTERM, its log, and the broker going away."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from services.edge.settings import Settings
from shared.bus import open_bus, provision
from shared.settings import environ_of
from tests.fixtures import organisation
from tests.fixtures.broker import Broker
from tests.fixtures.logs import stored_in
from tests.fixtures.owner import StubOwner
from tests.fixtures.talk import FIRST_TURN, STREAMED, ask
from tests.fixtures.upstream import Turn, Upstream, stream, upstream
from tests.fixtures.waiting import until
from tests.fixtures.wire import RawClient, post

__all__ = ["upstream"]  # a fixture


@asynccontextmanager
async def edge_process(
    broker: Broker, folder: Path, **changes: object
) -> AsyncIterator[tuple[asyncio.subprocess.Process, dict[str, int]]]:
    """A worker and its ports. changes: settings by name."""
    ready = folder / "ready.json"
    settings = msgspec.structs.replace(
        Settings(
            bus=broker.settings(),
            listen_port=0,
            data_dir=str(folder / "edge"),
            ready_file=str(ready),
            drain_seconds=10.0,
        ),
        **changes,
    )
    environ = os.environ | environ_of(settings, "EDGE") | {"TEST_PROVIDER_KEY": "sk-provider"}
    with (folder / "edge.log").open("w") as log:
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "services.edge", env=environ, stderr=log)
    try:
        await until(lambda: ready.exists() or process.returncode is not None, 20)
        yield process, json.loads(ready.read_text())["ports"]
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def stored(broker: Broker, name: str) -> int:
    async with open_bus(broker.settings(), "test") as bus:
        return await stored_in(bus, name)


async def prepare(broker: Broker, upstream: Upstream) -> None:
    async with open_bus(broker.settings(), "test") as bus:
        await provision(bus)
        await organisation.publish(bus, organisation.entities(upstream.url))


async def test_sigterm_lets_the_stream_end_and_exits_clean(tmp_path: Path, upstream: Upstream) -> None:
    gate = asyncio.Event()

    async def script(turn: Turn) -> None:
        await turn.start_stream()
        await turn.chunk(FIRST_TURN[:700])
        await gate.wait()
        await turn.chunk(FIRST_TURN[700:])
        await turn.write(b"0\r\n\r\n")

    upstream.script = script
    broker = Broker(tmp_path / "nats")
    broker.start()
    try:
        await prepare(broker, upstream)
        async with open_bus(broker.settings(), "owner") as bus, edge_process(broker, tmp_path) as (process, ports):
            await StubOwner().start(bus)
            async with RawClient(ports["edge"]) as client:
                client.send(post("/v1/messages", STREAMED))
                await client.until_body(FIRST_TURN[:300])
                process.send_signal(signal.SIGTERM)
                await until(lambda: not listening(ports["edge"]))
                gate.set()
                answer = await client.answer()
            assert (answer.body, answer.whole) == (FIRST_TURN, True)
            assert await asyncio.wait_for(process.wait(), 15) == 0
        assert (await stored(broker, "USAGE"), await stored(broker, "REQUESTS")) == (1, 1)
    finally:
        broker.stop()
    lines = [json.loads(line) for line in (tmp_path / "edge.log").read_text().splitlines()]
    [told] = [line for line in lines if line["event"] == "edge.request_completed"]
    assert (told["verdict"], told["status"], told["outcome"]) == ("admitted", 200, "ok")
    assert not any(key in told for key in ("body", "messages", "headers"))


async def test_the_edge_serves_on_while_the_broker_is_away_and_loses_no_record(
    tmp_path: Path, upstream: Upstream
) -> None:
    """Nothing on this key's path is hard, so requests pass ungoverned, and their records follow."""
    upstream.script = lambda turn: turn.write(stream(FIRST_TURN))
    broker = Broker(tmp_path / "nats")
    broker.start()
    try:
        await prepare(broker, upstream)
        async with edge_process(broker, tmp_path) as (process, ports):
            assert (await ask(ports["edge"])).body == FIRST_TURN
            broker.stop()
            assert (await ask(ports["edge"])).body == FIRST_TURN
            broker.start()
            assert (await ask(ports["edge"])).body == FIRST_TURN

            async def all_there() -> bool:
                return await stored(broker, "USAGE") == 3 and await stored(broker, "REQUESTS") == 3

            await until(all_there, 20)
            assert process.returncode is None
    finally:
        broker.stop()


def listening(port: int) -> bool:
    """Whether a socket listens there, by the kernel's table: a connection would be in the way of the drain."""
    rows = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(row.split()[1].endswith(f":{port:04X}") and row.split()[3] == "0A" for row in rows)
