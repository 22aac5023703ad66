"""Leases on: the broker is restarted under load, and nobody is refused, nothing overspent. The provider's bill is the oracle."""

import asyncio
import random
from pathlib import Path

import aiohttp
import pytest

from services.simulator.load import Done, Summary, Target, simulate
from tests.chaos import run
from tests.chaos.company import WIDE
from tests.chaos.stage import SLOWLY, Stage, stage
from tests.chaos.test_kills import kills
from tests.fixtures import money

CLIENTS = 30
WARM_SECONDS, BETWEEN_SECONDS = 8.0, 8.0
RESTARTS = 2
VERDICTS = "SELECT verdict, count() AS n, max(reserve_us) AS slowest_us FROM requests GROUP BY verdict"


@pytest.mark.timeout(600)
async def test_a_broker_that_is_restarted_under_load_refuses_nobody(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        traffic = asyncio.create_task(_traffic(it, WARM_SECONDS + RESTARTS * BETWEEN_SECONDS))
        await asyncio.sleep(WARM_SECONDS)
        for _ in range(RESTARTS):
            it.kill("nats")
            await asyncio.sleep(BETWEEN_SECONDS)
        summary = await traffic
        by_lease = await _metric(it, "sluicegate_edge_lease_grants_total")
        figures = await it.judged()
        found = await asyncio.to_thread(money.rows, it.up, VERDICTS)
    verdicts = {row["verdict"]: int(row["n"]) for row in found}
    slowest = max(int(row["slowest_us"]) for row in found)
    run.say(
        f"broker restarted {RESTARTS} times, leases on: {verdicts}, {by_lease:.0f} admitted on leases, the longest wait for "
        f"a verdict {slowest / 1000:.0f} ms; clients saw {summary.statuses}; {figures.report()}"
    )
    assert verdicts == {"admitted": summary.total}, "somebody was refused"
    assert figures.excess_nano_usd == 0
    assert by_lease > figures.exact / 2


@pytest.mark.timeout(600)
async def test_kill_9_of_random_processes_with_leases_on_changes_none_of_the_promises(tmp_path: Path) -> None:
    """An edge dies with what it was lent, an owner with what it has not been told of."""
    seed = run.seed()
    async with stage(tmp_path) as it:
        traffic = asyncio.create_task(it.traffic(run.seconds() + 2, 2 * CLIENTS, seed=seed))
        killed = await kills(it, random.Random(seed), run.seconds())
        summary = await traffic
        figures = await it.judged()
    run.say(f"leases on, CHAOS_SEED={seed}: killed {dict(killed)}; {summary.results}; {figures.report()}")
    assert figures.exact > 5 * run.seconds(), "too little traffic to prove anything"


async def _traffic(it: Stage, seconds: float) -> Summary:
    """Of one key far from its cap. No client asks twice. Some answers are the provider's errors, as always."""
    target = Target(base_url=it.up.base_url, keys=(WIDE,))

    def progress(done: Done, _: Summary) -> None:
        if done.result == "ok":
            it.whole.add(done.request_id)

    return await simulate(
        target, seconds=seconds, concurrency=CLIENTS, seed=run.seed(), patience=1, directives=SLOWLY, progress=progress
    )


async def _metric(it: Stage, name: str) -> float:
    port = it.up.ports["http"]["edge"]
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return next((float(line.split()[1]) for line in lines if line.startswith(f"{name} ")), 0.0)
