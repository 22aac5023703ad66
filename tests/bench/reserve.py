"""How fast budget decides: durable reserves through a real broker that syncs always. `python -m tests.bench.reserve`

Latencies are what an edge sees between its question and the durable answer, four tiers with room above each key.
"""

import asyncio
import json
import os
import secrets
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from services.budget.settings import Settings
from shared.bus import Bus, open_bus, provision
from shared.contracts.budget import Granted
from shared.settings import environ_of
from tests.fixtures.broker import Broker
from tests.fixtures.budget import Asker, ask, govern, organisation, publish_prices, rule
from tests.fixtures.waiting import until

SECONDS = 4.0
WARM_SECONDS = 1.0
AT_ONCE = (1, 64, 256)


async def measure(bus: Bus, at_once: int, seconds: float) -> dict[str, float]:
    """Latencies in ms and reserves per second."""
    took: list[float] = []
    end = time.perf_counter() + seconds

    async def client() -> None:
        asker = Asker(bus)
        while (began := time.perf_counter()) < end:
            verdict = await asker.reserve(ask(secrets.token_hex(13)))
            assert isinstance(verdict, Granted), verdict
            took.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(at_once)))
    took.sort()
    return {
        "at_once": at_once,
        "per_second": round(len(took) / (time.perf_counter() - began)),
        "p50_ms": round(took[len(took) // 2] * 1_000, 2),
        "p99_ms": round(took[len(took) * 99 // 100] * 1_000, 2),
    }


async def run(folder: Path) -> None:
    org, customer, team, key = ([rule(tier, 1e7)] for tier in ("org", "customer", "team", "key"))
    broker = Broker(folder / "nats")
    broker.start()
    try:
        settings = broker.settings("bench")
        async with open_bus(settings, "bench") as bus:
            await provision(bus)
            await govern(bus, organisation(org, customer, team, key))
            await publish_prices(bus)
            ready = folder / "ready"
            environ = os.environ | environ_of(
                Settings(bus=settings, absent_seconds=6_000, ready_file=str(ready)), "BUDGET"
            )
            with (folder / "log").open("wb") as log:
                owner = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "services.budget", env=environ, stderr=log
                )
                try:
                    await until(ready.exists, 20)
                    await measure(bus, 64, WARM_SECONDS)
                    for at_once in AT_ONCE:
                        sys.stdout.write(json.dumps(await measure(bus, at_once, SECONDS)) + "\n")
                finally:
                    owner.terminate()
                    await owner.wait()
    finally:
        broker.stop()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        uvloop.run(run(Path(made)))
