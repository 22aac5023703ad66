"""One shard in the life of this process: stand by while another replica has it, take it, lose it, stand by again."""

import asyncio
import time
from collections.abc import Coroutine

import structlog
from ulid import ULID

from services.budget.handlers.keeper import recover
from services.budget.handlers.owner import Owner
from services.budget.handlers.tenure import Shard, Tasks, tenure
from services.budget.lease import Lease
from services.budget.settings import Settings
from services.budget.stores import check_sync
from shared import telemetry
from shared.bus import Bus, open_bus
from shared.clock import Clock
from shared.contracts.budget import ShardOwned
from shared.errors import Overtaken, Unavailable
from shared.service import end

log = structlog.get_logger()

LOOK_SECONDS = 0.2
BEATS_IN_A_LEASE = 5
AGAIN_SECONDS = 0.5
COURTESY_SECONDS = 1.5  # at our start a shard that is free is first left to the replicas whose home it is
STOP_SECONDS = 5.0


class Seat:
    """Each shard has a connection of its own: whoever is deposed closes it, and nothing more can be asked of it there.

    A replica without a name takes its shards at once, and ends when another one writes. One with a name stands by while
    another is heard, its state kept warm from LEDGER, and again when it was deposed. The lease is a hint: a wrong guess
    costs a start of somebody, and never money, since the expected sequence of LEDGER alone says who may write.

    owner: while this process has the shard. settled: there is an owner, here or elsewhere.
    """

    def __init__(self, shard: str, settings: Settings, now: Clock) -> None:
        self.shard = shard
        self.owner: Owner | None = None
        self.settled = asyncio.Event()
        self._owned_gauge = telemetry.budget_owned.labels(shard)
        self._owned_gauge.set(0)
        self._settings = settings
        self._now = now
        self._incarnation = str(ULID())
        self._began = time.monotonic()
        self._bus: Bus | None = None
        self._stopping, self._over = asyncio.Event(), asyncio.Event()

    def ready(self) -> bool:
        """Owning, or standing by behind one that lives; and the broker can be reached."""
        return self.settled.is_set() and self._bus is not None and self._bus.connected

    async def stop(self) -> None:
        """Give the shard up in good order."""
        self._stopping.set()
        try:
            async with asyncio.timeout(self._settings.snapshot_stop_seconds + STOP_SECONDS):
                await self._over.wait()
        except TimeoutError:
            log.warning("budget.seat_not_left", shard=self.shard)

    async def run(self) -> None:
        """For ever. Raises LogUnfit; Overtaken, where it has no name; Unavailable, until somebody has the shard."""
        first = True
        while not self._stopping.is_set():
            try:
                async with open_bus(self._settings.bus, "budget") as self._bus:
                    await check_sync(self._bus, self._settings.allow_unsynced_broker)
                    await self._sit(self._bus, first)
            except Overtaken as error:
                if not self._settings.replica:
                    raise
                log.warning("budget.shard_lost", shard=self.shard, reason=str(error))
            except Unavailable as error:
                if not self.settled.is_set():
                    raise
                log.warning("budget.seat_retried", shard=self.shard, neighbour=error.neighbour)
                await asyncio.sleep(AGAIN_SECONDS)
            first = False
        self._over.set()
        await asyncio.Event().wait()  # until the process ends

    async def _sit(self, bus: Bus, first: bool) -> None:
        shard, tasks, lease = Shard(bus, self.shard), Tasks(), Lease(bus, self.shard, self._incarnation)
        try:
            tasks.start("budget.config", shard.rulebook.config.run())
            tasks.start("budget.prices", shard.rulebook.follow_prices())
            await self._unless_stopped(tasks, self._prepare(shard))
            await self._unless_stopped(tasks, self._come_by(shard, lease, first))
            if not self._stopping.is_set():
                await self._own(shard, lease, tasks)
        finally:
            self.owner = None
            await tasks.end()
        await lease.free()

    async def _unless_stopped(self, tasks: Tasks, work: Coroutine[None, None, None]) -> None:
        """Do it to its end, or until we stop; raise what ends one of our tasks meanwhile."""
        await tasks.until(asyncio.create_task(work), asyncio.create_task(_set(self._stopping)))

    async def _prepare(self, shard: Shard) -> None:
        await shard.rulebook.complete()
        shard.state, shard.since = await recover(shard.ledger, shard.shelf)

    async def _come_by(self, shard: Shard, lease: Lease, first: bool) -> None:
        """Return when the shard is ours to take and its state is as LEDGER has it."""
        if self._settings.replica:
            warm = asyncio.create_task(shard.ledger.keep_up(shard.state))
            mine = asyncio.create_task(self._until_mine(shard, lease, first))
            try:
                done, _ = await asyncio.wait({warm, mine}, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                await end(warm, mine)
        else:
            try:
                await lease.look()
                await lease.write(self._owned(shard))
            except (Unavailable, Overtaken):
                log.info("budget.lease_not_written", shard=self.shard)
        await shard.ledger.replay(shard.state)

    async def _until_mine(self, shard: Shard, lease: Lease, first: bool) -> None:
        """Look at the lease until nobody keeps it up, and write it before another standby does."""
        seen, quiet_since, looked = -1, time.monotonic(), time.monotonic()
        while True:
            try:
                held = await lease.look()
                at = time.monotonic()
                if lease.revision != seen or at - looked > self._settings.lease_seconds:
                    # news; or we were cut off or stopped ourselves, and know nothing of the time between
                    if held and seen not in (-1, lease.revision):
                        self.settled.set()
                    seen, quiet_since = lease.revision, at
                looked = at
                if self._may_take(held, at - quiet_since, first):
                    await lease.write(self._owned(shard))
                    return
            except Unavailable:
                looked = 0.0
            except Overtaken:
                log.info("budget.another_standby_was_first", shard=self.shard)
            await asyncio.sleep(LOOK_SECONDS)

    def _may_take(self, held: ShardOwned | None, quiet: float, first: bool) -> bool:
        if held is None:
            home = self._settings.home_shards
            at_home = not home or self.shard in home.split(",")
            return at_home or time.monotonic() - self._began > COURTESY_SECONDS
        if first and held.replica == self._settings.replica:
            return True  # our own last life
        return quiet > self._settings.lease_seconds

    def _owned(self, shard: Shard) -> ShardOwned:
        return ShardOwned(
            shard=self.shard,
            replica=self._settings.replica,
            incarnation=self._incarnation,
            owner_epoch=self.owner.state.owner_epoch if self.owner else shard.state.owner_epoch + 1,
        )

    async def _own(self, shard: Shard, lease: Lease, tasks: Tasks) -> None:
        """Until we stop. Raises Overtaken when the fence or the lease says that another one has the shard."""
        async with tenure(shard, tasks, self._settings, self._now) as owner:
            self.owner = owner
            self._owned_gauge.set(1)
            telemetry.budget_owner_epoch.labels(self.shard).set(owner.state.owner_epoch)
            tasks.start("budget.lease", self._keep_lease(shard, lease))
            self.settled.set()
            try:
                await self._unless_stopped(tasks, _never())
            finally:
                self.owner = None
                self._owned_gauge.set(0)
                telemetry.budget_owner_epoch.remove(self.shard)  # a past owner's would look like a change for ever

    async def _keep_lease(self, shard: Shard, lease: Lease) -> None:
        while True:
            try:
                await lease.write(self._owned(shard))
            except Unavailable:
                log.info("budget.lease_not_written", shard=self.shard)
            await asyncio.sleep(self._settings.lease_seconds / BEATS_IN_A_LEASE)


async def _set(event: asyncio.Event) -> None:
    await event.wait()


async def _never() -> None:
    await asyncio.Event().wait()
