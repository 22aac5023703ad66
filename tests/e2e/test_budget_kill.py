"""The owner as a process of its own, killed without warning."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.budget.settings import PREFIX, Settings
from shared.bus import Bus
from shared.contracts.budget import Granted
from shared.contracts.ledger import Commit, Entry, Held
from shared.contracts.message import Decoder
from shared.contracts.streams import LEDGER
from shared.settings import environ_of
from tests.fixtures.budget import Asker, ask, govern, organisation, publish_priced, publish_prices, rule, usage
from tests.fixtures.waiting import until

KEY = "key:key:total"
_commit = Decoder(Commit)


class Owner:
    """`python -m services.budget`, as the supervisor starts it."""

    def __init__(self, bus: Bus, directory: Path) -> None:
        self._ready = directory / "ready.json"
        self._log = directory / "log"
        settings = Settings(bus=bus.settings, ready_file=str(self._ready))
        self.environ = os.environ | environ_of(settings, PREFIX)
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        self._ready.unlink(missing_ok=True)
        self._spawn()
        assert self.process
        await until(self._ready.exists, 20, f"a ready owner; its log: {self._log.read_text()}")
        assert json.loads(self._ready.read_text())["pid"] == self.process.pid

    def _spawn(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "services.budget"], env=self.environ, stderr=log)

    async def stop(self, number: int = signal.SIGKILL) -> int:
        assert self.process
        self.process.send_signal(number)
        return await asyncio.to_thread(self.process.wait, 10)


@pytest.fixture
async def owner(bus: Bus, tmp_path: Path) -> AsyncIterator[Owner]:
    await publish_prices(bus)
    await govern(bus, organisation(key=[rule("key", 100, "total")]))
    started = Owner(bus, tmp_path)
    await started.start()
    yield started
    assert started.process
    if started.process.poll() is None:
        await started.stop()


async def events(bus: Bus) -> list[object]:
    found: list[object] = []
    end = (await bus.end(LEDGER)).seq
    async for messages in bus.follow(LEDGER):
        for stored in messages:
            found.extend(_commit.decode(stored.data).events)
        if messages[-1].seq >= end:
            break
    return found


async def test_nothing_answered_is_lost_and_nothing_is_held_or_booked_twice(bus: Bus, owner: Owner) -> None:
    asker = Asker(bus)
    granted: set[str] = set()

    async def attempt(n: int) -> None:
        answer = await asker.reserve(ask(f"r{n}"), seconds=60)
        assert isinstance(answer, Granted)
        granted.add(f"r{n}")
        await publish_priced(bus, usage(f"r{n}", nano_usd=1_000_000 + n))

    for round_ in range(3):
        attempts = [asyncio.create_task(attempt(n)) for n in range(round_ * 100, round_ * 100 + 100)]
        await until(lambda enough=round_ * 100 + 10: len(granted) > enough)  # type: ignore[misc]  # the default binds the loop's value
        await owner.stop()
        await owner.start()
        await asyncio.gather(*attempts)

    async def all_closed() -> bool:
        return (await asker.balance(KEY)).held_nano_usd == 0

    await until(all_closed)
    found = await events(bus)
    held = [event.rid for event in found if isinstance(event, Held)]
    closed = [event.event_id for event in found if isinstance(event, Entry)]
    assert sorted(held) == sorted(f"r{n}" for n in range(300))
    assert sorted(closed) == sorted(f"r{n}:0" for n in range(300))
    assert (await asker.balance(KEY)).spent_nano_usd == sum(1_000_000 + n for n in range(300))


async def test_told_to_end_it_ends_cleanly(owner: Owner) -> None:
    assert await owner.stop(signal.SIGTERM) == 0


async def test_overtaken_it_ends_with_one_line(bus: Bus, owner: Owner, tmp_path: Path) -> None:
    directory = tmp_path / "second"
    directory.mkdir()
    second = Owner(bus, directory)
    await second.start()
    assert second.process
    assert owner.process
    try:
        await Asker(bus).reserve(ask())
        assert await asyncio.to_thread(owner.process.wait, 10) == 1
        last = (tmp_path / "log").read_text().strip().splitlines()[-1]
        assert json.loads(last)["event"] == "service.stopped"
    finally:
        await second.stop()
