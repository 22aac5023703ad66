"""Neighbours that are away, slow, frozen or half connected, under load with hard budgets only; all by itself again after it."""

import asyncio
import time
from datetime import datetime
from pathlib import Path

import pytest

from services.cli.supervisor.plan import ON_THE_BUS
from tests.chaos import run
from tests.chaos.stage import EACH_ASKED, Stage, stage
from tests.fixtures.waiting import until

GRACE_SECONDS = 0.5
"""After the broker has gone: what had its grant by then is on its way to the provider."""
CLIENTS = 40


@pytest.mark.timeout(600)
async def test_a_broker_that_is_away_admits_nothing_and_loses_nothing(tmp_path: Path) -> None:
    async with stage(tmp_path, through_broker_proxy=ON_THE_BUS, environ=EACH_ASKED) as it:
        away = 60.0 if run.seconds() >= 60 else 0.4 * run.seconds()
        traffic = asyncio.create_task(it.traffic(away + 8.0, CLIENTS, seed=run.seed()))
        await asyncio.sleep(3.0)
        await it.broker.away()
        gone = time.time()
        await asyncio.sleep(away)
        came_back = time.time()
        await it.broker.back()
        resumed = await _resumed(it, came_back)
        summary = await traffic
        figures = await it.judged()
        meanwhile = [at for at in _asked(it) if gone + GRACE_SECONDS < at < came_back]
    run.say(
        f"broker away for {away:.0f} s: {len(meanwhile)} admitted meanwhile, first after {resumed:.2f} s; "
        f"{summary.results} {summary.statuses}; {figures.report()}"
    )
    assert not meanwhile, "admitted while nobody could decide"
    assert figures.exact > 50


async def _resumed(it: Stage, since: float) -> float:
    """Seconds until the provider is asked again."""
    return await until(lambda: next((at - since for at in _asked(it) if at > since), 0.0), 30, "an attempt after it")


def _asked(it: Stage) -> list[float]:
    """When each attempt reached the provider, by its own clock."""
    return [datetime.fromisoformat(line["at"]).timestamp() for line in it.bill_lines()]


@pytest.mark.timeout(600)
async def test_frozen_and_disturbed_neighbours_change_none_of_the_promises(tmp_path: Path) -> None:
    """SIGSTOP of each in turn, then a broker and a provider behind a line that delays, stalls, loses and cuts."""
    async with stage(tmp_path, through_broker_proxy=ON_THE_BUS) as it:
        traffic = asyncio.create_task(it.traffic(_disturbances() + 2.0, CLIENTS, seed=run.seed()))
        for service in ("nats", "budget", "pricing", "simulator", "edge"):
            async with it.frozen(service):
                await asyncio.sleep(_pause())
            await asyncio.sleep(0.5)
        await _disturb_broker(it)
        await _disturb_provider(it)
        summary = await traffic
        figures = await it.judged()
    run.say(f"frozen and disturbed: {summary.results} {summary.statuses}; {figures.report()}")
    assert figures.exact > 50


def _pause() -> float:
    """Seconds of each disturbance."""
    return 1.5 if run.seconds() < 60 else 5.0


def _disturbances() -> float:
    return 13 * _pause() + 5 * 0.5


async def _disturb_broker(it: Stage) -> None:
    line = it.broker
    line.delay_seconds = 0.03
    await asyncio.sleep(_pause())
    line.heal()
    line.stall("up", "down")
    await asyncio.sleep(_pause())
    line.heal()
    line.half_open("down")
    await asyncio.sleep(_pause())
    line.heal()
    line.half_open("up")
    await asyncio.sleep(_pause())
    line.heal()
    line.cut()


async def _disturb_provider(it: Stage) -> None:
    line = it.provider
    line.delay_seconds = 0.1
    await asyncio.sleep(_pause())
    line.heal()
    line.stall("down")
    await asyncio.sleep(_pause())
    line.heal()
    line.lose_after(20_000, "down")
    await asyncio.sleep(_pause())
    line.heal()
    await line.away()
    await asyncio.sleep(_pause())
    await line.back()
