"""In front of the owner: admits on leases what it can, and asks about an attempt once the owner knows of it."""

import asyncio
from collections.abc import Callable

import structlog

from services.edge.core.lifecycle import Identity
from services.edge.stores.borrower import Borrower
from services.edge.stores.owner import CUT_SECONDS, Answer
from services.edge.stores.owners import Owners
from shared import clock, telemetry
from shared.bus import Bus
from shared.contracts.budget import Cut, Denied, Extend, Reserve
from shared.directory import Directory
from shared.service import end

log = structlog.get_logger()


class Lender:
    """`reserve`, `extend`, `true_up` and `cut` are those of Owners. enabled: else it is nothing more.

    directory: as this edge knows the organisation now. current: whether it would have heard of a revoked key or a blocked scope;
    if not, only the owner can tell.
    """

    def __init__(
        self,
        bus: Bus,
        me: Identity,
        owners: Owners,
        directory: Directory,
        *,
        enabled: bool,
        current: Callable[[], bool],
        now: clock.Clock = clock.now,
    ) -> None:
        self._bus, self._me, self._owners, self._directory = bus, me, owners, directory
        self._enabled, self._current, self._now = enabled, current, now
        self._wished = 0
        self._borrowers: dict[str, Borrower] = {}
        self._new: asyncio.Queue[Borrower] = asyncio.Queue()

    @property
    def nano_usd(self) -> int:
        """To be drawn on open leases."""
        return sum(borrower.purse.nano_usd for borrower in self._borrowers.values())

    @property
    def can_admit(self) -> bool:
        """Whether anything could begin here without the owner."""
        return self._enabled and self._current() and self.nano_usd > 0

    @property
    def asking(self) -> "list[asyncio.Task[None]]":
        return [task for borrower in self._borrowers.values() for task in borrower.asking]

    async def reserve(self, ask: Reserve, *, patient: bool = True) -> Answer:
        """At once on a lease, without anybody being asked; else as the owner says. See Owner.reserve."""
        if not (self._enabled and patient and self._current()):
            return await self._owners.reserve(ask, patient=patient)
        borrower = self._borrower(self._directory.shard(ask.principal.org))
        answer: Answer | None = borrower.purse.draw(ask, self._now())
        if answer is not None:
            telemetry.edge_lease_grants.inc()
            borrower.wake()
        else:
            answer = await self._owners.reserve(ask, patient=patient)
        if not isinstance(answer, Denied) and (wish := borrower.purse.wish(ask, self._now(), self._next_lease())):
            self._wished += 1
            borrower.ask(wish)
        return answer

    async def extend(self, ask: Extend) -> Answer:
        """See Owners.extend. Of an attempt that the owner does not know yet nothing can be asked."""
        await self._told(ask.rid)
        return await self._owners.extend(ask)

    async def true_up(self, rid: str, input_tokens: int, nano_usd: int) -> None:
        """See Owners.true_up."""
        await self._told(rid)
        await self._owners.true_up(rid, input_tokens, nano_usd)

    async def cut(self, cut: Cut) -> bool:
        """See Owners.cut. False, too, where the owner could not be told of the attempt in time."""
        try:
            async with asyncio.timeout(CUT_SECONDS):
                await self._told(cut.rid)
        except TimeoutError:
            return False
        return await self._owners.cut(cut)

    async def _told(self, rid: str) -> None:
        for borrower in list(self._borrowers.values()):
            await borrower.told(rid)

    def _next_lease(self) -> str:
        return f"{self._me.edge}.{self._me.epoch}.{self._wished}"

    def _borrower(self, shard: str) -> Borrower:
        borrower = self._borrowers.get(shard)
        if borrower is None:
            borrower = Borrower(self._bus, self._me, shard, lambda: self._directory.config_rev, self._now)
            self._borrowers[shard] = borrower
            self._new.put_nowait(borrower)
        return borrower

    def drop(self, key: str) -> None:
        """See Purse.drop."""
        for borrower in self._borrowers.values():
            borrower.purse.drop(key)
            borrower.wake()

    async def run(self) -> None:
        """For ever; start it as a task. Shards have a task each: one without an owner must not keep the others waiting."""
        async with asyncio.TaskGroup() as group:
            while True:
                group.create_task((await self._new.get()).run())

    async def close(self, seconds: float) -> None:
        """Give everything back; what cannot be returned in time is freed when this edge's next start has told its end."""
        try:
            async with asyncio.timeout(seconds):
                await asyncio.gather(*self.asking)  # what is being lent is given back, too
                await asyncio.gather(*(borrower.given_back() for borrower in self._borrowers.values()))
        except TimeoutError:
            log.info("edge.leases_not_returned")
        await end(*self.asking)
