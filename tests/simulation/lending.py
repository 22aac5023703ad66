"""Leases, played small: the edge's purse with its talk, and what the owner does for the leases of the dead."""

import asyncio
from typing import TYPE_CHECKING

import msgspec

from services.budget.core.estates import Estates
from services.budget.core.group import Group
from services.budget.core.leases import GiveBack, Lend, Lent, Policy
from services.edge.core.lease import Purse
from shared.contracts.budget import Done, Granted, Reserve
from shared.contracts.edge import EdgeStatus
from shared.contracts.leases import DRAW, LEASE, RETURN, Drawn, LeaseAnswered, LeaseAsked, Returning
from shared.contracts.ledger import Leased, LedgerEvent
from shared.contracts.message import Decoder, Message, encode
from shared.contracts.pricing import UsagePriced
from shared.errors import Unavailable
from tests.simulation.world import SHARD

if TYPE_CHECKING:
    from tests.simulation.edge import Edge
    from tests.simulation.owner import Owner

POLICY = Policy(
    share_percent=30, lent_percent=60, kept_percent=10, seconds=40, least_seconds=2
)  # bolder than the product
_asked, _answered = Decoder(LeaseAsked), Decoder(LeaseAnswered)
_drawn, _returning = Decoder(Drawn), Decoder(Returning)
_priced = Decoder(UsagePriced)


class Hasty(Purse):
    """A mutant: gives back what is left of a lease before the owner knows what was drawn on it."""

    def to_return(self) -> str:
        return next(iter(self._closed), "") or super().to_return()

    def to_tell(self) -> Drawn | None:
        return None if self.to_return() else super().to_tell()


class Borrower:
    """Of one edge process."""

    def __init__(self, edge: "Edge") -> None:
        self._edge = edge
        self._world = edge.world
        self._purse = Hasty() if self._world.mutant == "lease_returned_untold" else Purse()
        self._count = 0
        self._wake = asyncio.Event()

    def draw(self, ask: Reserve) -> Granted | None:
        granted = self._purse.draw(ask, self._world.now())
        if granted:
            self._world.seen["granted on a lease"] += 1
            self._wake.set()
            if self._world.mutant == "lease_drawn_twice":
                self._purse._open[next(iter(self._purse._open))].left += granted.held_nano_usd
        return granted

    def admitted(self, ask: Reserve) -> None:
        """Ask for a lease now and then; traffic here is thin, so each attempt counts twice."""
        for _ in range(2):
            me = self._edge.spool.identity
            self._count += 1
            wish = self._purse.wish(ask, self._world.now(), f"{me.edge}.{me.epoch}.lease{self._count}")
            if wish:
                self._edge.spawn(self._ask(wish))

    async def _ask(self, wish: LeaseAsked) -> None:
        answer: LeaseAnswered | None = None
        try:
            answer = _answered.decode(await self._edge.port.request(LEASE.format(shard=SHARD), encode(wish), 0.3))
        except Unavailable:
            self._world.seen["lease unanswered"] += 1
        self._purse.answered(wish, answer, self._world.now())
        self._wake.set()

    async def run(self) -> None:
        me = self._edge.spool.identity
        while True:
            try:
                async with asyncio.timeout(1):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            self._purse.tidy(self._world.now(), self._world.config_rev, self._edge.port.connected)
            while True:
                drawn, lease = self._purse.to_tell(), self._purse.to_return()
                if drawn:
                    await self._tell(DRAW, drawn)
                    self._purse.told(drawn)
                elif lease:
                    await self._tell(RETURN, Returning(lease=lease, edge=me.edge, epoch=me.epoch))
                    self._purse.returned(lease)
                else:
                    break

    async def _tell(self, subject: str, message: Message) -> None:
        for tries in range(1_000_000):
            await self._edge.here("about to tell of a lease")
            try:
                await self._edge.port.request(subject.format(shard=SHARD), encode(message), min(0.1 * 2**tries, 2))
            except Unavailable:
                await asyncio.sleep(0.1)
                self._purse.tidy(self._world.now(), self._world.config_rev, self._edge.port.connected)
            else:
                return


class Lending:
    """Of one owner."""

    def __init__(self, owner: "Owner") -> None:
        self._owner = owner
        self.estates = Estates()

    def subscribe(self) -> None:
        for subject, handler in ((LEASE, self._on_lease), (DRAW, self._on_draw), (RETURN, self._on_return)):
            self._owner.port.subscribe(subject.format(shard=SHARD), handler)

    async def _on_lease(self, data: bytes) -> bytes | None:
        ask = _asked.decode(data)
        lent = await self._owner.tell(Lend(ask, POLICY))
        assert isinstance(lent, Lent)
        return encode(LeaseAnswered(lease=ask.lease, owner_epoch=self._owner.state.owner_epoch, terms=lent.terms))

    async def _on_draw(self, data: bytes) -> bytes | None:
        drawn = _drawn.decode(data)
        await self._owner.tell(drawn)
        return self._done(drawn.lease)

    async def _on_return(self, data: bytes) -> bytes | None:
        lease = _returning.decode(data).lease
        await self._owner.tell(GiveBack(lease))
        return self._done(lease)

    def _done(self, lease: str) -> bytes:
        return encode(Done(rid=lease, owner_epoch=self._owner.state.owner_epoch))

    def heard(self, status: EdgeStatus) -> None:
        if self._owner.world.mutant == "lease_freed_early":
            status = msgspec.structs.replace(status, delivered_epoch=status.epoch - 1)
        self.estates.heard(status)

    async def settle(self) -> None:
        """Once a second."""
        owner = self._owner
        leases = owner.state.leases
        if not self.estates.concerns(leases):
            return
        try:
            (priced,) = await owner.port.last("PRICED")
            (usage,) = await owner.port.last("USAGE")
        except Unavailable:
            return
        recorded, end = usage.seq if usage else 0, (0, 0)
        if priced:
            end = (priced.seq, _priced.decode(priced.data).usage_at.seq)
        applied = owner.state.priced.seq
        for lease in self.estates.settled(leases, recorded, end, applied):
            owner.world.seen["lease of a dead edge freed"] += 1
            owner.tell(GiveBack(lease))


class Careless(Group):
    """A mutant: what is lent is not set aside."""

    def apply(self, event: LedgerEvent) -> None:
        if isinstance(event, Leased):
            event = msgspec.structs.replace(event, terms=msgspec.structs.replace(event.terms, nano_usd=0))
        super().apply(event)
