"""In front of the owner: admits on leases what it can, and keeps the owner's books and ours together in the background."""

import asyncio
from collections.abc import Callable
from itertools import chain, repeat

import structlog

from services.edge.core.lease import Purse
from services.edge.core.lifecycle import Identity
from services.edge.stores.owner import CUT_SECONDS, Answer
from services.edge.stores.owners import Owners
from shared import clock, telemetry
from shared.bus import Bus
from shared.contracts.budget import Cut, Denied, Done, Extend, Reserve
from shared.contracts.leases import DRAW, LEASE, RETURN, LeaseAnswered, LeaseAsked, Returning
from shared.contracts.message import Decoder, Message, encode
from shared.directory import Directory
from shared.errors import Unavailable
from shared.service import end

log = structlog.get_logger()

ANSWER_SECONDS = 1.0
TELL_SECONDS = (0.25, 0.5, 1.0, 2.0)
"""Deadlines of what is told until it is known. An owner that is busy must not be buried under repeated questions."""
PAUSE_SECONDS = 0.1
TIDY_SECONDS = 1.0
GATHER_SECONDS = (
    0.02  # nobody waits for what is told, and many as one message cost everybody less than one after the other
)

_answered = Decoder(LeaseAnswered)
_done = Decoder(Done)


class Borrower:
    """What this edge owes to one shard, and is owed. asking: questions for leases that are under way."""

    def __init__(self, bus: Bus, me: Identity, shard: str, config_rev: Callable[[], int], now: clock.Clock) -> None:
        self._bus, self._me, self._shard, self._config_rev, self._now = bus, me, shard, config_rev, now
        self.purse = Purse()
        self.asking: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._said = asyncio.Event()
        self._settled = asyncio.Event()

    def wake(self) -> None:
        """There is something to tell."""
        self._wake.set()

    async def run(self) -> None:
        """For ever; start it as a task."""
        while True:
            try:
                async with asyncio.timeout(TIDY_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                pass  # time to tidy up
            if not self.purse.shut:
                await asyncio.sleep(GATHER_SECONDS)
            self._wake.clear()
            self._tidy()
            await self._settle()

    def _tidy(self) -> None:
        self.purse.tidy(self._now(), self._config_rev(), self._bus.connected)

    async def told(self, rid: str) -> None:
        """Return when the owner knows of this attempt, as it does of all that were not admitted by us."""
        while self.purse.is_untold(rid):
            self._said.clear()
            await self._said.wait()

    async def given_back(self) -> None:
        """Return when nothing is lent any more; `run` must be running."""
        self.purse.shut_down()
        self.wake()
        while self.purse:
            self._settled.clear()
            await self._settled.wait()

    async def _settle(self) -> None:
        """Tell what was drawn, return what is not needed, until nothing is left to say."""
        while True:
            if drawn := self.purse.to_tell():
                await self._tell(DRAW, drawn)
                self.purse.told(drawn)
                self._said.set()
            elif lease := self.purse.to_return():
                await self._tell(RETURN, Returning(lease=lease, edge=self._me.edge, epoch=self._me.epoch))
                self.purse.returned(lease)
                log.debug("edge.lease_returned", lease=lease)
            else:
                self._settled.set()
                return

    async def _tell(self, subject: str, message: Message) -> None:
        """Until the owner has it durably, through any number of owners."""
        data = encode(message)
        for deadline in chain(TELL_SECONDS, repeat(TELL_SECONDS[-1])):
            try:
                _done.decode(await self._bus.request(self._subject(subject), data, timeout=deadline))
            except Unavailable:
                await asyncio.sleep(PAUSE_SECONDS)
                self._tidy()
            else:
                return

    def ask(self, wish: LeaseAsked) -> None:
        task = asyncio.create_task(self._ask(wish))
        self.asking.add(task)
        task.add_done_callback(self.asking.discard)

    async def _ask(self, wish: LeaseAsked) -> None:
        answer: LeaseAnswered | None = None
        try:
            data = await self._bus.request(self._subject(LEASE), encode(wish), timeout=ANSWER_SECONDS)
            answer = _answered.decode(data)
        except Unavailable:
            pass  # perhaps it is lent all the same: it is given back
        finally:
            self.purse.answered(wish, answer, self._now())
            self.wake()
        if answer and answer.terms:
            log.debug("edge.lease_taken", lease=wish.lease, nano_usd=answer.terms.nano_usd, model=wish.like.model)

    def _subject(self, subject: str) -> str:
        return subject.format(shard=self._shard)


class Lender:
    """`reserve`, `extend`, `true_up` and `cut` are those of Owners. enabled: else it is nothing more.

    directory: as this edge knows the organisation now.

    current: whether this edge would have heard that a key is revoked, a scope blocked; else only the owner can tell.
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
