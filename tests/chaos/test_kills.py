"""The kill loop: `kill -9` of a random process every one to two seconds, under load. The provider's bill is the oracle."""

import asyncio
import random
from collections import Counter
from contextlib import suppress
from pathlib import Path
from statistics import median

import aiohttp
import pytest

from tests.chaos import run
from tests.chaos.stage import EACH_ASKED, SERVICES, Stage, stage

CLIENTS = 100


@pytest.mark.timeout(600)
async def test_kill_9_of_random_processes_under_load_changes_none_of_the_promises(tmp_path: Path) -> None:
    seed = run.seed()
    run.say(f"kill loop: CHAOS_SEED={seed} CHAOS_SECONDS={run.seconds():.0f}")
    in_flight: list[int] = []
    async with stage(tmp_path, environ=EACH_ASKED) as it:
        flying = asyncio.create_task(_in_flight(it, in_flight))
        traffic = asyncio.create_task(it.traffic(run.seconds() + 2, CLIENTS, seed=seed))
        killed = await kills(it, random.Random(seed), run.seconds())
        flying.cancel()
        summary = await traffic
        figures = await it.judged()
    most, usual = max(in_flight), median(in_flight)
    run.say(
        f"killed {dict(killed)}; in flight at most {most}, usually {usual:.0f}; "
        f"{summary.results} {summary.statuses}; {figures.report()}"
    )
    assert most >= 50
    assert figures.exact > 10 * run.seconds(), "too little traffic to prove anything"


async def kills(it: Stage, dice: random.Random, seconds: float) -> Counter[str]:
    """The supervisor starts each of them again meanwhile."""
    killed: Counter[str] = Counter()
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        await asyncio.sleep(dice.uniform(1, 2))
        service = dice.choice(SERVICES)
        it.kill(service)
        killed[service] += 1
    return killed


async def _in_flight(it: Stage, seen: list[int]) -> None:
    """Attempts between their grant and their end, again and again; an edge that is being started again tells nothing."""
    while True:
        await asyncio.sleep(0.5)
        with suppress(aiohttp.ClientError):
            seen.append(await it.live_attempts())
