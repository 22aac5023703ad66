"""Pricing and the keeper of rows: both read one log in order and remember their place in what they write."""

import asyncio

from services.pricing import core
from shared.contracts.edge import UsageRecorded
from shared.contracts.ledger import Commit, Entry
from shared.contracts.message import Decoder, encode
from shared.contracts.pricing import UsagePriced
from shared.contracts.streams import Position
from shared.errors import Overtaken, Unavailable
from shared.rates import Overrides
from tests.fixtures.budget import BOOK
from tests.simulation.broker import Stored
from tests.simulation.company import PROVIDER
from tests.simulation.world import Process, World

WINDOW = 6
_usage = Decoder(UsageRecorded)
_priced = Decoder(UsagePriced)
_commit = Decoder(Commit)
_NO_OVERRIDES = Overrides(())


class Pricing(Process):
    """USAGE to PRICED, each record fenced by the one before it. _end: last sequence of PRICED, as it knows it."""

    _end = 0

    async def run(self) -> None:
        (last,) = await self.port.persist(lambda: self.port.last("PRICED"))
        self._end = last.seq if last else 0
        after = _priced.decode(last.data).usage_at.seq if last else 0
        while True:
            window = await self.port.read("USAGE", after, WINDOW)
            await self.here("about to price")
            await self._append([self._record(stored) for stored in window])
            after = window[-1].seq

    def _record(self, stored: Stored) -> tuple[str, bytes]:
        usage = _usage.decode(stored.data)
        terms = core.terms_of(usage, PROVIDER)
        priced = core.priced(usage, Position(log_id="u", seq=stored.seq), terms, BOOK, _NO_OVERRIDES)
        return f"{usage.rid}:{usage.kind}:{stored.seq}@{self.name}", encode(priced)

    async def _append(self, left: list[tuple[str, bytes]]) -> None:
        size = len(left)
        while left:
            if await self._try(left[:size]):
                left, size = left[size:], len(left)
            else:
                left, size = left[await self._stored_of(left[:size]) :], 1

    async def _try(self, window: list[tuple[str, bytes]]) -> bool:
        """All at once; False when one was not acknowledged as foretold."""
        results = await asyncio.gather(
            *(self._one(msg_id, data, self._end + index) for index, (msg_id, data) in enumerate(window))
        )
        if results != [self._end + 1 + index for index in range(len(window))]:
            return False
        self._end += len(window)
        return True

    async def _one(self, msg_id: str, data: bytes, expected: int) -> int:
        try:
            return await self.port.append("PRICED", data, msg_id, expected)
        except (Unavailable, Overtaken):
            return 0

    async def _stored_of(self, window: list[tuple[str, bytes]]) -> int:
        """How many of the window are there, by the last message: ours, or somebody else's."""
        await asyncio.sleep(0.2)
        (last,) = await self.port.persist(lambda: self.port.last("PRICED"))
        seq = last.seq if last else 0
        if seq == self._end:
            return 0
        index = seq - self._end - 1
        if last is None or not 0 <= index < len(window) or window[index][1] != last.data:
            raise Overtaken
        self._end = seq
        return index + 1


class Rows(Process):
    """LEDGER to rows by entry id; the place stands in the rows themselves, so a block is there with its place or not at all."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self._table = world.rows

    async def run(self) -> None:
        after = self._table.place
        while True:
            block = await self.port.read("LEDGER", after, 10)
            await self.here("about to insert")
            for stored in block:
                for event in _commit.decode(stored.data).events:
                    if isinstance(event, Entry):
                        self._table.rows[event.event_id] = event.usage.cost_nano_usd
                        self._table.inserted += 1
            self._table.place = after = block[-1].seq
            await self.here("inserted")
