"""What is decided together and written as one record."""

import msgspec

from services.budget.core.admission import Rules
from services.budget.core.line import Line
from services.budget.core.state import State
from shared.contracts.budget import Denied, Granted
from shared.contracts.ledger import LedgerEvent
from shared.contracts.message import Micros

MOST_EVENTS = 500  # of those who wait, let in by one record: the broker takes 1 MiB, and a raised limit may let in many


class Late(msgspec.Struct, frozen=True, gc=False):
    """An answer to who was told to wait. n: 0 for a RESERVE."""

    edge: str
    rid: str
    n: int
    answer: Granted | Denied


class Group(msgspec.Struct):
    """What commands of one moment are decided by, and what came of them so far: answers wait until `events` are durable."""

    state: State
    line: Line
    rules: Rules
    shard: str
    now: Micros
    events: list[LedgerEvent] = []
    late: list[Late] = []

    @property
    def full(self) -> bool:
        return len(self.events) >= MOST_EVENTS

    def apply(self, event: LedgerEvent) -> None:
        self.state.apply(event)
        self.events.append(event)
