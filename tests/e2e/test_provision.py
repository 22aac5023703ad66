"""`sluicegate provision`, as the Job and the waiting containers of the Helm chart call it."""

import asyncio
import json
import os
import sys
from pathlib import Path

from shared.bus import Bus, BusSettings, open_bus
from shared.bus.streams import missing
from shared.contracts.streams import BUCKETS, CONFIG, LEDGER, STREAMS
from shared.settings import environ_of
from tests.fixtures.broker_cluster import cluster
from tests.fixtures.waiting import until

SLUICEGATE = Path(sys.executable).parent / "sluicegate"


async def provision(service: str, settings: BusSettings, *arguments: str) -> tuple[int, str]:
    """Exit code and all that it said, with the variables of one service."""
    process = await asyncio.create_subprocess_exec(
        *(str(SLUICEGATE), "provision", *arguments),
        env={"PATH": os.environ["PATH"]} | environ_of(settings, f"{service.upper()}_BUS"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(60):
        said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


async def test_streams_are_made_once_and_waited_for_by_whoever_needs_them(bus_settings: BusSettings) -> None:
    waiting = asyncio.create_task(provision("edge", bus_settings, "--check", "--of", "edge"))
    async with open_bus(bus_settings, "test") as bus:
        assert len(await missing(bus)) > 5
        code, said = await provision("edge", bus_settings, "--check", "--of", "edge", "--wait-seconds", "0")
        assert code == 1
        assert f"{bus_settings.prefix}_{LEDGER}" in said
        assert not waiting.done()

        code, said = await provision("analytics", bus_settings)
        assert code == 0, said
        assert await missing(bus) == []
        code, said = await waiting
        assert code == 0, said

        made = await bus.end(CONFIG)
        assert (await provision("analytics", bus_settings))[0] == 0
        assert await bus.end(CONFIG) == made, "made anew"


async def test_a_broker_that_does_not_answer_is_trouble_in_one_line() -> None:
    away = BusSettings(url="nats://127.0.0.1:1", connect_timeout_seconds=0.2)
    code, said = await provision("analytics", away, "--wait-seconds", "0")
    assert code == 1
    assert "nats://127.0.0.1:1" in said
    assert "Traceback" not in said


async def copies(bus: Bus) -> dict[str, int]:
    """Of each stream, those of the buckets among them: what is configured, if as many keep up with it, else 0."""
    found = {}
    for name in [*map(bus.names.stream, STREAMS), *(f"KV_{bus.names.stream(bucket)}" for bucket in BUCKETS)]:
        info = json.loads((await bus.client.request(f"$JS.API.STREAM.INFO.{name}", b"", timeout=5)).data)
        group = info.get("cluster", {})
        current = bool(group.get("leader")) + sum(each["current"] for each in group.get("replicas", ()))
        found[name] = info["config"]["num_replicas"] if info["config"]["num_replicas"] == current else 0
    return found


async def test_the_number_of_copies_follows_the_setting_and_nothing_is_lost(tmp_path: Path) -> None:
    with cluster(tmp_path, 3) as settings:
        code, said = await provision("analytics", settings, "--replicas", "1")
        assert code == 0, said
        async with open_bus(settings, "test") as bus:
            await bus.append("config.changed", b"one")
            name, before = bus.names.stream(CONFIG), await bus.end(CONFIG)
            limited = (await bus.client.jetstream().stream_info(name)).config.evolve(max_bytes=1 << 20)
            await bus.client.jetstream().update_stream(limited)
            for asked, there in (("3", 3), (None, 3), ("1", 1)):
                arguments = ("--replicas", asked) if asked else ()
                code, said = await provision("analytics", settings, *arguments)
                assert code == 0, said

                async def settled(there: int = there) -> bool:
                    return set((await copies(bus)).values()) == {there}

                await until(settled)
            assert (await bus.client.jetstream().stream_info(name)).config.max_bytes == 1 << 20, "an operator's limit"
            assert await bus.end(CONFIG) == before


async def test_more_copies_than_the_broker_has_nodes_is_trouble_in_one_line(bus_settings: BusSettings) -> None:
    code, said = await provision("analytics", bus_settings, "--replicas", "3", "--wait-seconds", "0")
    assert code == 1
    assert "replicas" in said
    assert "Traceback" not in said
