"""Listens to the edges: which attempts live, who is new, and which holds nobody knows any more."""

import asyncio

import structlog

from services.budget.core import blocks
from services.budget.core.luggage import moving
from services.budget.core.moves import next_step
from services.budget.core.presence import Presence
from services.budget.core.step import Expire
from services.budget.handlers.herald import Herald
from services.budget.handlers.owner import TICK_SECONDS, Owner
from services.budget.handlers.rulebook import Rulebook
from services.budget.stores import closings_under_way, kept_decisions, passing_under_way, registered_edges
from shared.bus import Bus
from shared.contracts.budget import ACKNOWLEDGED, Acknowledged, Decision
from shared.contracts.edge import EDGE_STATUS, EdgeStatus
from shared.contracts.ledger import Decided
from shared.contracts.message import Decoder, Micros, Uid, encode
from shared.errors import Unavailable

log = structlog.get_logger()

STALL_MICROS = 5_000_000
PATIENCE = 5  # how many times the absence is borne while closings are under way: pricing may be stuck for good
_status = Decoder(EdgeStatus)


class Watch:
    """Keeps Presence from the edges' statuses and acts on it."""

    def __init__(
        self, bus: Bus, owner: Owner, rulebook: Rulebook, presence: Presence, herald: Herald, shard: str, absent: Micros
    ) -> None:
        self._bus = bus
        self._owner = owner
        self._rulebook = rulebook
        self._presence = presence
        self._herald = herald
        self._shard = shard
        self._absent = absent
        self._here: set[tuple[Uid, int]] = set()

    async def begin(self) -> None:
        """Hear the edges from now on, and bring everyone to the decisions of the ledger."""
        await self._bus.subscribe(EDGE_STATUS.format(edge="*"), self.heard)
        await self._bus.subscribe(ACKNOWLEDGED.format(shard=self._shard), self.acknowledged)
        now = self._owner.now()
        for edge in await registered_edges(self._bus):
            self._presence.expect(edge, now)
        self._herald.decide(await self._due_at_start())

    async def _due_at_start(self) -> list[Decision]:
        """Every block, and whatever DECISIONS has otherwise than the ledger: the owner before us may not have got to it."""
        kept = await kept_decisions(self._bus)
        told = self._owner.state.decisions
        return [
            self._decision(decided)
            for scope, decided in told.items()
            if decided.state == "block" or scope not in kept or self._is_other(kept[scope], decided)
        ]

    def _is_other(self, kept: Decision, decided: Decided) -> bool:
        return (kept.version, kept.move) != (decided.version, self._decision(decided).move)

    def _decision(self, decided: Decided) -> Decision:
        return blocks.decision(self._owner.state, self._rulebook.current(), decided, self._owner.now())

    def decided(self, decided: list[Decided]) -> None:
        """Tell what the owner has decided."""
        self._herald.decide([self._decision(event) for event in decided])

    async def heard(self, data: bytes) -> None:
        status = _status.decode(data)
        if self._presence.heard(status, self._owner.now()):
            log.info("budget.edge_heard", edge=status.edge, epoch=status.epoch)
            state = self._owner.state
            self._herald.tell(status.edge, [self._decision(state.decisions[scope]) for scope in blocks.blocked(state)])

    async def acknowledged(self, data: bytes) -> bytes:
        """What is durable and told; between two records, since what is being written is neither yet."""
        async with self._owner.between_records:
            state = self._owner.state
            return encode(
                Acknowledged(
                    config_rev=state.config_rev if self._owner.durable else 0,
                    decision_version=state.version,
                    owner_epoch=state.owner_epoch,
                    lagging=self._herald.lagging,
                    moving=self._moving(),
                )
            )

    def _moving(self) -> tuple[Uid, ...]:
        """On their way from here, to here, or about to be."""
        stays, homes = self._owner.state.stays, self._rulebook.config.directory.homes
        due = (org for org, of in homes.items() if len(of) > 1 and next_step(of, stays.get(org), self._shard))
        return tuple(sorted({*moving(stays), *due}))

    async def run(self) -> None:
        """Once a second, for ever: roll periods, and expire what nobody lists."""
        before = self._owner.now()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = self._owner.now()
            if now - before > STALL_MICROS or not self._bus.connected:
                # we were stopped, or cut off: the edges may have said it all the while
                self._presence.spare(now)
            before = now
            self._owner.tick()
            await self._expire(now)

    async def _expire(self, now: Micros) -> None:
        here = {(org, stay.move) for org, stay in self._owner.state.stays.items() if stay.phase == "here"}
        if here != self._here:
            self._here = here
            self._presence.spare(now)  # their attempts were listed all the while, but not for us to remember
        forgotten = list(self._presence.forgotten(self._owner.state.holds, now))
        if not forgotten:
            return
        try:
            under_way = await closings_under_way(self._bus, self._shard, self._owner.state)
            for source in {stay.shard for stay in self._owner.state.stays.values() if stay.phase == "here"}:
                under_way = under_way or await passing_under_way(self._bus, source)
        except Unavailable:
            return
        for rid in forgotten:
            hold = self._owner.state.holds.get(rid)
            if hold and under_way and now - hold.held.admitted_at < PATIENCE * self._absent:
                continue
            self._owner.tell(Expire(rid))
