"""All that runs while this process owns a shard, in the order of ledger.md, section 4."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager

import msgspec
import structlog

from services.budget.core.leases import Policy
from services.budget.core.presence import Presence
from services.budget.core.state import State
from services.budget.handlers.auditor import Auditor
from services.budget.handlers.commands import Commands
from services.budget.handlers.herald import Herald
from services.budget.handlers.keeper import Keeper
from services.budget.handlers.lending import Lending
from services.budget.handlers.mover import Mover
from services.budget.handlers.owner import Owner
from services.budget.handlers.rulebook import Rulebook
from services.budget.handlers.watch import Watch
from services.budget.settings import Settings
from services.budget.snapshots import Shelf
from services.budget.stores import Ledger, priced_after
from shared.bus import Bus
from shared.bus.behind import tell_behind
from shared.clock import Clock
from shared.contracts.budget import Changed
from shared.contracts.ledger import Decided
from shared.contracts.pricing import USAGE_PRICED
from shared.contracts.streams import PRICED
from shared.service import end

log = structlog.get_logger()


class Tasks:
    """Work that must go on for ever: the end of one piece is the end of what they make up together."""

    def __init__(self) -> None:
        self._running: list[asyncio.Task[None]] = []

    def start(self, name: str, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._running.append(task)
        return task

    async def broken(self) -> None:
        """Raise what ended the first of them, once one has ended; else wait for ever."""
        done, _ = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
            raise RuntimeError(f"{task.get_name()} ended")

    async def until(self, *others: "asyncio.Task[None]") -> None:
        """Return when one of the others has ended, raising what it raised; raise when our own work ends first."""
        broken = asyncio.create_task(self.broken())
        try:
            done, _ = await asyncio.wait({broken, *others}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await end(broken, *others)

    async def end(self) -> None:
        await end(*self._running)


class Shard:
    """One shard as this process knows it: its log and the state folded from it, and the rules."""

    def __init__(self, bus: Bus, name: str) -> None:
        self.bus, self.name = bus, name
        self.rulebook = Rulebook(bus, name)
        self.ledger, self.shelf = Ledger(bus, name), Shelf(bus, name)
        self.state, self.since = State(), 0


@asynccontextmanager
async def tenure(shard: Shard, tasks: Tasks, settings: Settings, now: Clock) -> AsyncIterator[Owner]:
    """Take the shard, resume PRICED, tell the edges, and only then take requests. Raises Overtaken: another one was first."""
    bus, state = shard.bus, shard.state
    shard.rulebook.stays = state.stays
    shard.rulebook.moved()
    await shard.ledger.begin(state, await priced_after(bus, state), now())
    absent = int(settings.absent_seconds * 1_000_000)
    presence = Presence(absent, now())
    herald = Herald(bus, presence, now, shard.name, settings.ack_seconds)

    def announce(decided: list[Decided], changed: list[Changed]) -> None:
        edges.decided(decided)
        herald.change(changed)

    owner = Owner(
        shard.ledger, state, shard.rulebook, announce, herald.tell_late, now, shard.name, settings.group_bytes
    )
    edges = Watch(bus, owner, shard.rulebook, presence, herald, shard.name, absent)
    keeper = Keeper(owner, shard.ledger, shard.shelf, settings.snapshot_records, shard.since)
    mover = Mover(bus, owner, shard.rulebook, shard.name)
    commands = Commands(owner, shard.rulebook, mover, shard.name, settings.config_wait_seconds)
    lending = Lending(bus, owner, mover, shard.name, Policy(seconds=settings.credit_seconds))
    log.info("budget.shard_taken", shard=shard.name, owner_epoch=state.owner_epoch, ledger_seq=shard.ledger.seq)
    tasks.start("budget.owner", owner.run())
    tasks.start("budget.snapshots", keeper.run())
    tasks.start("budget.self_check", Auditor(msgspec.structs.replace(settings, shards=shard.name), now).run())
    tasks.start("budget.decisions", herald.keep())
    tasks.start("budget.priced", commands.follow_priced(bus))
    subject = USAGE_PRICED.format(shard=shard.name)
    behind = tell_behind(bus, "budget", PRICED, lambda: state.priced.seq, subject=subject, shard=shard.name)
    tasks.start("budget.behind", behind)
    tasks.start("budget.moves", mover.run())
    await edges.begin()
    tasks.start("budget.watch", edges.run())
    await mover.subscribe()
    tasks.start("budget.leases", lending.run())
    await lending.subscribe()
    await commands.subscribe(bus)
    left = False
    try:
        yield owner
        left = True
    finally:
        await herald.close()
        if left:  # and not thrown out: then every moment that we still look like the owner is one too many
            await keeper.close(settings.snapshot_stop_seconds)
