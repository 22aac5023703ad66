"""What the owner's loop is made of: commands that wait, the step they lead to, and the moment between two records."""

import asyncio

import msgspec

from services.budget.core.group import Group
from services.budget.core.step import Answer, Command
from shared.contracts.ledger import LedgerEvent


class Asked(msgspec.Struct, frozen=True, gc=False):
    """A command that waits its turn. bytes: about what its event will take in the record."""

    command: Command
    answer: "asyncio.Future[Answer] | None"
    bytes: int


class Step(msgspec.Struct):
    """What one group of commands leads to, and who is told once it is durable. room: bytes left in its record.

    looking: scopes whose blocks are looked at when it is complete.
    """

    group: Group
    room: int
    looking: set[str]
    answers: list[tuple["asyncio.Future[Answer]", Answer]] = []
    spent: set[str] = set()
    moved: bool = False

    @property
    def events(self) -> list[LedgerEvent]:
        return self.group.events


class Between:
    """Held by who must see a state of which nothing is on its way to the ledger. wanted: how many wait for it."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self.wanted = 0

    async def __aenter__(self) -> None:
        self.wanted += 1
        try:
            await self._lock.acquire()
        finally:
            self.wanted -= 1

    async def __aexit__(self, *_: object) -> None:
        self._lock.release()
