"""The owner's loop: what one record of the ledger may hold."""

import asyncio
from collections.abc import Sequence
from typing import cast

from services.budget.core.admission import Rules
from services.budget.core.state import State
from services.budget.handlers.owner import Owner
from services.budget.handlers.rulebook import Rulebook
from services.budget.stores import Ledger
from shared.contracts.config import BudgetRule, Key
from shared.contracts.ledger import Commit, Decided, LedgerEvent
from shared.contracts.message import Micros, encode
from shared.contracts.streams import Position
from tests.fixtures.budget import NOW, organisation, rules
from tests.fixtures.waiting import until

KEYS = 12_000
MOST_BYTES = 1 << 20  # what the broker takes as one message


class PlayedLedger:
    """Takes every record."""

    def __init__(self) -> None:
        self.versions: list[int] = []
        self.largest = 0

    async def append(self, state: State, events: Sequence[LedgerEvent], now: Micros) -> None:
        record = Commit(
            shard="0", owner_epoch=1, at=now, digest=bytes(32), priced=Position(log_id="p"), events=tuple(events)
        )
        self.largest = max(self.largest, len(encode(record)))
        self.versions += [event.version for event in events if isinstance(event, Decided)]
        await asyncio.sleep(0)

    async def confirm(self) -> None:
        await asyncio.sleep(0)


class PlayedRulebook:
    """Rules that never change."""

    def __init__(self, known: Rules) -> None:
        self.changed = asyncio.Event()
        self._known = known

    def current(self) -> Rules:
        return self._known


def _key(uid: str) -> Key:
    nothing = BudgetRule(id=f"key:{uid}:month", limit_nano_usd=0, period="month")
    return Key(uid=uid, org="org", customer="cus", team="team", id=uid, budgets=(nothing,))


async def test_blocks_of_any_number_of_keys_at_once_fit_the_records() -> None:
    """A month that begins or a new organisation decides them all in one moment; a record too large would stop the shard."""
    keys = [_key(f"01M7YWX7E0HQRZGNWWCYT{n:05d}") for n in range(KEYS)]
    ledger, rulebook = PlayedLedger(), PlayedRulebook(rules([*organisation(), *keys]))
    owner = Owner(
        cast(Ledger, ledger),
        State(),
        cast(Rulebook, rulebook),
        lambda decided, changed: None,
        lambda late: None,
        lambda: NOW,
        "0",
        400_000,
    )
    owner.tick()
    running = asyncio.create_task(owner.run())
    try:
        await until(lambda: len(ledger.versions) == KEYS)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert ledger.largest < MOST_BYTES
    assert ledger.versions == list(range(1, KEYS + 1))
