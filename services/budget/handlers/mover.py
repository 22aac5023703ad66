"""Moves organisations between shards: lets go of those that leave, fetches those that come, passes on what comes late.

Between two owners nothing is pushed: the one that an organisation comes to asks, again and again, until it has everything.
So either side may die at any moment; what the other has committed stands, and the next owner goes on from there.
"""

import asyncio

import structlog

from services.budget.core import luggage
from services.budget.core.luggage import Piece, Stay
from services.budget.core.moves import Arrive, Come, Depart, HandOver, Leave, PassOn, next_step
from services.budget.core.step import SILENT, Close, is_settled
from services.budget.handlers.owner import Owner
from services.budget.handlers.rulebook import Rulebook
from services.budget.stores import passing_under_way
from shared.bus import Bus
from shared.contracts.budget import CLOSE, LUGGAGE, Done, LuggageAsked, LuggagePart
from shared.contracts.message import Decoder, Uid, encode
from shared.contracts.pricing import UsagePriced
from shared.contracts.streams import Position
from shared.directory import Directory
from shared.errors import Unavailable

log = structlog.get_logger()

LOOK_SECONDS = 0.05
ASK_SECONDS = 0.25  # a shard that is not ready yet says nothing; what is asked again changes nothing
PART_BYTES = 300_000  # the broker takes 1 MiB, and a group of the ledger half of that
UIDS_IN_EVENT = 5_000
ALL_HERE = -1
_asked = Decoder(LuggageAsked)
_part = Decoder(LuggagePart)
_priced = Decoder(UsagePriced)
_done = Decoder(Done)


class Mover:
    """Of one shard, while it is ours."""

    def __init__(self, bus: Bus, owner: Owner, rulebook: Rulebook, shard: str) -> None:
        self._bus = bus
        self._owner = owner
        self._rulebook = rulebook
        self._shard = shard
        self._leaving: set[Uid] = set()  # asked to depart: what is asked after it is decided after it
        self._told: set[tuple[Uid, int]] = set()
        self._packed: tuple[Uid, int, list[Piece]] = ("", 0, [])

    async def subscribe(self) -> None:
        """Take what other owners ask from now on."""
        await self._bus.subscribe(LUGGAGE.format(shard=self._shard), self.luggage)
        await self._bus.subscribe(CLOSE.format(shard=self._shard), self.close)

    async def run(self) -> None:
        """For ever. A neighbour that does not answer is asked again."""
        while True:
            for org in [org for org, homes in self._directory.homes.items() if len(homes) > 1]:
                try:
                    await self._go_on(org)
                except Unavailable as error:
                    log.debug("budget.move_waits", shard=self._shard, org=org, neighbour=error.neighbour)
            await asyncio.sleep(LOOK_SECONDS)

    @property
    def _directory(self) -> Directory:
        return self._rulebook.config.directory

    @property
    def _stays(self) -> dict[Uid, Stay]:
        return self._owner.state.stays

    async def _go_on(self, org: Uid) -> None:
        stay = self._stays.get(org)
        match next_step(self._directory.homes[org], stay, self._shard):
            case Leave(move, to):
                await self._leave(org, move, to)
            case Come(move, source):
                await self._come(org, move, source)
            case None if stay and stay.phase == "here" and (org, stay.move) not in self._told:
                await self._ask_luggage(stay.shard, org, stay.move, ALL_HERE)
                self._told.add((org, stay.move))

    async def _leave(self, org: Uid, move: int, to: str) -> None:
        uids = sorted(uid for uid, of in self._directory.org_of.items() if of == org)
        self._leaving.add(org)
        try:
            for at in range(0, len(uids), UIDS_IN_EVENT):
                some = tuple(uids[at : at + UIDS_IN_EVENT])
                await self._owner.ask(Depart(org, move, to, some, at + len(some) >= len(uids)), 30 * len(some))
        finally:
            self._leaving.discard(org)
        log.info("budget.organisation_left", shard=self._shard, org=org, to=to, move=move)

    async def _come(self, org: Uid, move: int, source: str) -> None:
        while True:
            stay = self._stays.get(org)
            if stay and stay.move == move and stay.phase == "here":
                log.info("budget.organisation_came", shard=self._shard, org=org, source=source, pieces=stay.pieces)
                return
            after = stay.pieces if stay and stay.move == move else 0
            part = await self._ask_luggage(source, org, move, after)
            await self._owner.ask(Arrive(source, part), len(part.data))

    async def _ask_luggage(self, source: str, org: Uid, move: int, after: int) -> LuggagePart:
        ask = encode(LuggageAsked(org=org, move=move, after=after))
        return _part.decode(await self._bus.request(LUGGAGE.format(shard=source), ask, timeout=ASK_SECONDS))

    async def luggage(self, data: bytes) -> bytes:
        """What is kept for the shard that an organisation goes to. Silent as long as it has not left, durably."""
        ask = _asked.decode(data)
        if ask.after == ALL_HERE:
            await self._owner.ask(HandOver(ask.org, ask.move), 0)
            return encode(LuggagePart(org=ask.org, move=ask.move, after=ALL_HERE, pieces=0, data=b"", whole=True))
        async with self._owner.between_records:
            stay = self._stays.get(ask.org)
            if not self._owner.durable or stay is None or (stay.move, stay.phase) != (ask.move, "left"):
                raise Unavailable(f"organisation {ask.org}")
            if self._packed[:2] != (ask.org, ask.move):
                self._packed = (ask.org, ask.move, luggage.pieces(stay.luggage))
        pieces = self._packed[2]
        part, count = luggage.part(pieces, ask.after, PART_BYTES)
        whole = ask.after + count >= len(pieces)
        return encode(LuggagePart(org=ask.org, move=ask.move, after=ask.after, pieces=count, data=part, whole=whole))

    def lease_at(self, lease: str) -> str:
        """The shard that has this lease by now; "" when it is ours, unknown, or still on its way."""
        stay = self._stays.get(self._owner.state.moved.get(lease, ""))
        return stay.shard if stay and stay.phase == "gone" else ""

    async def awaits_closes(self) -> bool:
        """Whether a shard that an organisation came from may have closes to pass on. Raises Unavailable."""
        sources = {stay.shard for stay in self._stays.values() if stay.phase == "here"}
        return any([await passing_under_way(self._bus, source) for source in sources])

    # Closes.

    def where(self, priced: UsagePriced) -> str:
        """The shard that has to book it; "" while nobody may."""
        usage = priced.usage
        org = usage.principal.org
        if is_settled(self._owner.state, usage.rid):
            return self._shard  # where it is known that nothing is left to do
        if org in self._leaving:
            return ""
        if stay := self._stays.get(org):
            return {"here": self._shard, "left": stay.shard, "gone": stay.shard}.get(stay.phase, "")
        homes = self._directory.homes.get(org)
        if not homes or homes[0][1] == self._shard:
            return self._shard
        return ""  # on its way here, or CONFIG is

    async def close_priced(self, priced: UsagePriced, at: Position, data: bytes) -> None:
        """A record of PRICED, before the next one is looked at: booked here, or where its organisation lives by now."""
        await self._owner.room()
        while True:
            where = self.where(priced)
            if where == self._shard:
                self._owner.tell(Close(priced, at), len(data))
                return
            if where and await self._passed(where, data):
                self._owner.tell(PassOn(priced.usage.rid, where, priced.usage.kind == "settled", at))
                return
            await asyncio.sleep(LOOK_SECONDS)

    async def _passed(self, shard: str, data: bytes) -> bool:
        """Whether the other shard has it, durably."""
        try:
            _done.decode(await self._bus.request(CLOSE.format(shard=shard), data, timeout=ASK_SECONDS))
        except Unavailable:
            return False
        return True

    async def close(self, data: bytes) -> bytes:
        """A close that came to a shard where the organisation lived before."""
        priced = _priced.decode(data)
        where = self.where(priced)
        if where and where != self._shard:
            if not await self._passed(where, data):
                raise Unavailable(f"shard {where}")
        elif not where or await self._owner.ask(Close(priced, None), len(data)) is SILENT:
            raise Unavailable(f"organisation {priced.usage.principal.org}")
        return encode(Done(rid=priced.usage.rid, owner_epoch=self._owner.state.owner_epoch))
