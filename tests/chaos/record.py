"""Record the ledger of this release for tests/corpus: `make chaos-corpus`, with entries of every kind."""

import asyncio
import tempfile
from collections import Counter
from importlib.metadata import version
from pathlib import Path

from shared.contracts.ledger import Entry
from tests import corpus
from tests.chaos import books
from tests.chaos.stage import ABSENT_SECONDS, Stage, stage
from tests.fixtures import money

SECONDS = 8.0
KILLED = ("edge", "budget", "edge", "nats", "pricing", "edge")


async def record(folder: Path) -> corpus.Ledger:
    """Judged before it is kept."""
    async with stage(folder, tight_usd=0.1) as it:
        traffic = asyncio.create_task(it.traffic(SECONDS, 16, "chunk_ms=60"))
        for service in KILLED:
            await asyncio.sleep(SECONDS / len(KILLED))
            it.kill(service)
        await traffic
        await _late_closes(it)
        await it.judged()
        found = await books.of_installation(it.up, it.bill)
        balances = await asyncio.to_thread(money.budgets, it.up)
    events = [event for each in found.records for event in each.commit.events]
    return corpus.Ledger(
        version=version("sluicegate"),
        records=tuple(each.data for each in found.records),
        balances=tuple(
            corpus.Balance(item["id"], item["period_id"], item["spent_nano_usd"], item["held_nano_usd"])
            for item in balances
        ),
        closings=dict(Counter(event.kind for event in events if isinstance(event, Entry))),
    )


async def _late_closes(it: Stage) -> None:
    """The edge stands still with streams in flight until their holds expire, and then closes them after all."""
    traffic = asyncio.create_task(it.traffic(None, 4, "chunks=20;chunk_ms=100", count=4, mix={"stream": 1}))
    await asyncio.sleep(1.0)
    async with it.frozen("edge"):
        await asyncio.sleep(2.0 * ABSENT_SECONDS)
    await traffic


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        corpus.keep(asyncio.run(record(Path(folder))))


if __name__ == "__main__":
    main()
