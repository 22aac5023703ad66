"""What this edge owes to one shard, and is owed: keeps the owner's books and ours together in the background."""

import asyncio
from collections.abc import Callable
from itertools import chain, repeat

import structlog

from services.edge.core.lease import Purse
from services.edge.core.lifecycle import Identity
from shared import clock
from shared.bus import Bus
from shared.contracts.budget import Done
from shared.contracts.leases import DRAW, LEASE, RETURN, LeaseAnswered, LeaseAsked, Returning
from shared.contracts.message import Decoder, Message, encode
from shared.errors import Unavailable

log = structlog.get_logger()

ANSWER_SECONDS = 1.0
TELL_SECONDS = (0.25, 0.5, 1.0, 2.0)
"""Deadlines of what is told until it is known. An owner that is busy must not be buried under repeated questions."""
PAUSE_SECONDS = 0.1
TIDY_SECONDS = 1.0
GATHER_SECONDS = 0.02
"""Nobody waits for what is told, and many as one message cost everybody less than one after the other."""

_answered = Decoder(LeaseAnswered)
_done = Decoder(Done)


class Borrower:
    """asking: questions for leases that are under way."""

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
