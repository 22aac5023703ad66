"""Record the ledger of this release for tests/corpus: `python -m tests.chaos.record`, ten seconds of the kill loop."""

import asyncio
import random
import tempfile
from collections import Counter
from importlib.metadata import version
from pathlib import Path

from shared.contracts.ledger import Entry
from tests import corpus
from tests.chaos import books, length
from tests.chaos.stage import stage
from tests.chaos.test_kills import kills
from tests.fixtures import money

SECONDS = 10.0


async def record(folder: Path) -> corpus.Ledger:
    """Judged before it is kept."""
    seed = length.seed()
    async with stage(folder) as it:
        traffic = asyncio.create_task(it.traffic(SECONDS, 12, seed=seed))
        await kills(it, random.Random(seed), SECONDS - 2)
        await traffic
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


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        corpus.keep(asyncio.run(record(Path(folder))))


if __name__ == "__main__":
    main()
