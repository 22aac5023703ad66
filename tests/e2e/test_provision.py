"""`sluicegate provision`, as the Job and the waiting containers of the Helm chart call it."""

import asyncio
import os
import sys
from pathlib import Path

from shared.bus import BusSettings, open_bus
from shared.bus.streams import missing
from shared.contracts.streams import CONFIG, LEDGER
from shared.settings import environ_of

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
