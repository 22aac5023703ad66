"""The kill loop: `kill -9` of a random process every one to two seconds, under load. The provider's bill is the oracle."""

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest

from tests.chaos import length
from tests.chaos.stage import SERVICES, Stage, stage

CLIENTS = 80


@pytest.mark.timeout(600)
async def test_kill_9_of_random_processes_under_load_changes_none_of_the_promises(tmp_path: Path) -> None:
    seed = length.seed()
    print(f"\nkill loop: CHAOS_SEED={seed} CHAOS_SECONDS={length.seconds():.0f}")  # noqa: T201 # to run it again
    async with stage(tmp_path) as it:
        traffic = asyncio.create_task(it.traffic(length.seconds() + 2, CLIENTS, seed=seed))
        killed = await kills(it, random.Random(seed), length.seconds())
        summary = await traffic
        figures = await it.judged()
    print(f"killed {dict(killed)}; {summary.results} {summary.statuses}; {figures.report()}")  # noqa: T201 # figures to report
    assert figures.exact > 10 * length.seconds(), "too little traffic to prove anything"


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
