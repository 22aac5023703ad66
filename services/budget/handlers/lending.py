"""What edges ask and tell of leases, and what becomes of the leases of an edge that died."""

import asyncio

import structlog

from services.budget.core.estates import Estates
from services.budget.core.leases import GiveBack, Lend, Lent, Policy
from services.budget.core.step import SILENT
from services.budget.handlers.mover import Mover
from services.budget.handlers.owner import TICK_SECONDS, Owner
from services.budget.stores import closings_end
from shared import telemetry
from shared.bus import Bus
from shared.contracts.budget import Done
from shared.contracts.edge import EDGE_STATUS, EdgeStatus
from shared.contracts.leases import DRAW, LEASE, RETURN, Drawn, LeaseAnswered, LeaseAsked, Returning
from shared.contracts.message import Decoder, encode
from shared.errors import Unavailable

log = structlog.get_logger()

_lease = Decoder(LeaseAsked)
_drawn = Decoder(Drawn)
_returning = Decoder(Returning)
_status = Decoder(EdgeStatus)


class Lending:
    """The subjects of one shard that concern leases."""

    def __init__(self, bus: Bus, owner: Owner, mover: Mover, shard: str, policy: Policy) -> None:
        self._bus = bus
        self._mover = mover
        self._owner = owner
        self._shard = shard
        self._policy = policy
        self._estates = Estates()

    async def subscribe(self) -> None:
        for subject, handler in ((LEASE, self.lease), (DRAW, self.draw), (RETURN, self.give_back)):
            await self._bus.subscribe(subject.format(shard=self._shard), handler)
        await self._bus.subscribe(EDGE_STATUS.format(edge="*"), self.heard)

    async def lease(self, data: bytes) -> bytes:
        ask = _lease.decode(data)
        lent = await self._owner.ask(Lend(ask, self._policy), len(data))
        assert isinstance(lent, Lent), "that is how a lease is answered"
        return encode(LeaseAnswered(lease=ask.lease, owner_epoch=self._owner.state.owner_epoch, terms=lent.terms))

    async def draw(self, data: bytes) -> bytes:
        drawn = _drawn.decode(data)
        if shard := self._mover.lease_at(drawn.lease):
            return await self._bus.request(DRAW.format(shard=shard), data)
        if await self._owner.ask(drawn, len(data)) is SILENT:
            raise Unavailable(f"lease {drawn.lease}")
        return encode(Done(rid=drawn.lease, owner_epoch=self._owner.state.owner_epoch))

    async def give_back(self, data: bytes) -> bytes:
        lease = _returning.decode(data).lease
        if shard := self._mover.lease_at(lease):
            return await self._bus.request(RETURN.format(shard=shard), data)
        if await self._owner.ask(GiveBack(lease), len(data)) is SILENT:
            raise Unavailable(f"lease {lease}")
        return encode(Done(rid=lease, owner_epoch=self._owner.state.owner_epoch))

    async def heard(self, data: bytes) -> None:
        self._estates.heard(_status.decode(data))

    async def run(self) -> None:
        """Once a second, for ever: free what dead edges had, once all that they drew is booked."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            state = self._owner.state
            telemetry.budget_leases.set(len(state.leases))
            telemetry.budget_leased_nano_usd.set(sum(lease.nano_usd for lease in state.leases.values()))
            if not self._estates.concerns(state.leases):
                continue
            try:
                recorded, priced = await closings_end(self._bus, self._shard)
                if await self._mover.awaits_closes():
                    continue  # what was drawn may still be on its way from the shard that it was begun in
            except Unavailable:
                continue
            for lease in self._estates.settled(state.leases, recorded, priced, state.priced.seq):
                log.info("budget.lease_freed", lease=lease)
                self._owner.tell(GiveBack(lease))
