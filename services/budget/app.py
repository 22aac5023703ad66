"""Where the owner is put together, in the order of ledger.md, section 4."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

import structlog
from aiohttp import web

from services.budget.core.presence import Presence
from services.budget.handlers.auditor import Auditor
from services.budget.handlers.commands import Commands
from services.budget.handlers.herald import Herald
from services.budget.handlers.keeper import Keeper, recover
from services.budget.handlers.owner import Owner
from services.budget.handlers.rulebook import Rulebook
from services.budget.handlers.watch import Watch
from services.budget.settings import Settings
from services.budget.snapshots import Shelf
from services.budget.stores import Ledger, LogUnfit, priced_after
from shared import clock
from shared.bus import Bus, open_bus
from shared.contracts.budget import Changed
from shared.contracts.ledger import Decided
from shared.service import READY, end, new_app, watch

log = structlog.get_logger()

BUS = web.AppKey("bus", Bus)
OWNER = web.AppKey("owner", Owner)

_Start = Callable[[str, Coroutine[None, None, None]], None]


class _Readiness:
    """Ready once the ledger is replayed and the shard is taken, for as long as the broker can be reached."""

    def __init__(self) -> None:
        self.owner: Owner | None = None
        self.bus: Bus | None = None

    def __call__(self) -> bool:
        return self.owner is not None and self.bus is not None and self.bus.connected


def build_app(settings: Settings, now: clock.Clock = clock.now) -> web.Application:
    app = new_app()
    ready = _Readiness()
    app[READY] = ready

    async def bus(app: web.Application) -> AsyncIterator[None]:
        async with open_bus(settings.bus, "budget") as opened:
            await _check_sync(opened, settings)
            app[BUS] = ready.bus = opened
            yield

    async def owner(app: web.Application) -> AsyncIterator[None]:
        async with _owner(app, settings, now) as taken:
            app[OWNER] = ready.owner = taken
            yield
            ready.owner = None

    app.cleanup_ctx.append(bus)
    app.cleanup_ctx.append(owner)
    return app


async def _check_sync(bus: Bus, settings: Settings) -> None:
    if await bus.sync_always() is False:
        if not settings.allow_unsynced_broker:
            raise LogUnfit(
                "the broker acknowledges before it writes to disk, so a power cut loses money; set jetstream "
                "sync_interval: always, or accept it with BUDGET_ALLOW_UNSYNCED_BROKER=true"
            )
        log.warning("budget.broker_not_synced")


@asynccontextmanager
async def _owner(app: web.Application, settings: Settings, now: clock.Clock) -> AsyncIterator[Owner]:
    """Replay, take the shard, resume PRICED, tell the edges, and only then take requests."""
    bus = app[BUS]
    rulebook, ledger, shelf = Rulebook(bus), Ledger(bus, settings.shard), Shelf(bus, settings.shard)
    async with _tasks(app) as start:
        start("budget.config", rulebook.config.run())
        start("budget.prices", rulebook.follow_prices())
        await rulebook.complete()
        state, since = await recover(ledger, shelf)
        await ledger.begin(state, await priced_after(bus, state), now())
        absent = int(settings.absent_seconds * 1_000_000)
        presence = Presence(absent, now())
        herald = Herald(bus, presence, now, settings.shard, settings.ack_seconds)

        def announce(decided: list[Decided], changed: list[Changed]) -> None:
            edges.decided(decided)
            herald.change(changed)

        owner = Owner(ledger, state, rulebook, announce, herald.tell_late, now, settings.shard, settings.group_bytes)
        edges = Watch(bus, owner, rulebook, presence, herald, settings.shard, absent)
        keeper = Keeper(owner, ledger, shelf, settings.snapshot_records, since)
        commands = Commands(owner, rulebook, settings.shard, settings.config_wait_seconds)
        log.info("budget.shard_taken", shard=settings.shard, owner_epoch=state.owner_epoch, ledger_seq=ledger.seq)
        start("budget.owner", owner.run())
        start("budget.snapshots", keeper.run())
        start("budget.self_check", Auditor(settings, now).run())
        start("budget.decisions", herald.keep())
        start("budget.priced", commands.follow_priced(bus))
        await edges.begin()
        start("budget.watch", edges.run())
        await commands.subscribe(bus)
        try:
            yield owner
        finally:
            await herald.close()
            await keeper.close(settings.snapshot_stop_seconds)


@asynccontextmanager
async def _tasks(app: web.Application) -> AsyncIterator[_Start]:
    """Tasks that must run for ever: the end of one ends the process, the end of the process ends them."""
    running: list[asyncio.Task[None]] = []

    def start(name: str, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work, name=name)
        running.append(task)
        watch(app, task)

    try:
        yield start
    finally:
        await end(*running)
