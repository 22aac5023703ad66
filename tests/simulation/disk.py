"""An edge's spool as far as the protocol knows it: records in order, how many of them are on disk, and what survives."""

import asyncio
from typing import TYPE_CHECKING

import msgspec

from services.edge.core.journal import Dropped, Opened, Progressed, Sent, Started, Unfinished
from services.edge.core.lifecycle import Identity, recovered
from shared.contracts.edge import UsageRecorded
from tests.simulation.clock import MICROS

if TYPE_CHECKING:
    from tests.simulation.world import World

Record = Opened | Started | Sent | Progressed | Dropped | UsageRecorded


class Disk:
    """Survives its processes. synced: how many records a power cut cannot take. acked: a hint, not a promise."""

    def __init__(self, edge: str) -> None:
        self.edge = edge
        self.epoch = 0
        self.boot = 1
        self.records: list[Record] = []
        self.synced = 0
        self.acked = 0
        self.stalled_until = 0

    def power_cut(self, world: "World") -> None:
        """What was not synced may be there in part: files are written in order, so it is a beginning of it."""
        keep = world.rng.randint(self.synced, len(self.records))
        world.note(f"{self.edge}: power cut, {len(self.records) - keep} records lost")
        del self.records[keep:]
        self.synced = len(self.records)
        self.acked = world.rng.randint(0, min(self.acked, keep))
        self.boot += 1


class Spool:
    """One process's use of the disk, from its start to its death."""

    def __init__(self, world: "World", disk: Disk) -> None:
        self._world, self._disk = world, disk
        disk.epoch += 1  # synced before it is used
        self.identity = Identity(edge=disk.edge, epoch=disk.epoch)
        self.live: dict[str, None] = {}
        self.outbox: list[tuple[int, UsageRecorded]] = []  # with the place of the record
        self.arrived = asyncio.Event()
        self._seq = 0
        self._syncing = asyncio.Lock()
        self._open()

    def _open(self) -> None:
        disk, unfinished = self._disk, self._fold()
        disk.records.append(Opened(epoch=disk.epoch, boot_id=str(disk.boot), at=self._world.now()))
        for left in unfinished:
            usage = recovered(left, self.identity, self._world.now())
            self._world.note(f"{disk.edge}: {usage.rid} recovered as {usage.kind}")
            self._append(usage)
        disk.synced = len(disk.records)
        self.inherited = len(self.outbox)

    def _fold(self) -> list[Unfinished]:
        """As `spool_folder` does: what was started and not ended, and what the broker may not have."""
        open_: dict[str, Unfinished] = {}
        rebooted = False
        for place, record in enumerate(self._disk.records):
            match record:
                case Opened(boot_id=boot):
                    rebooted = boot != str(self._disk.boot)
                case Started(usage=usage):
                    open_[usage.rid] = Unfinished(started=record, rebooted=rebooted)
                case Sent(usage=usage) if usage.rid in open_:
                    open_[usage.rid] = msgspec.structs.replace(open_[usage.rid], sent=record)
                case Progressed(rid=rid) if rid in open_:
                    open_[rid] = msgspec.structs.replace(open_[rid], progressed=record)
                case Dropped(rid=rid):
                    open_.pop(rid, None)
                case UsageRecorded(rid=rid):
                    open_.pop(rid, None)
                    if place >= self._disk.acked:
                        self._queue(place, record)
        return list(open_.values())

    def _queue(self, place: int, record: UsageRecorded) -> None:
        self.outbox.append((place, record))
        self.arrived.set()

    def write(self, record: Record) -> None:
        """Into the page cache."""
        self._disk.records.append(record)
        if isinstance(record, Started):
            self.live[record.usage.rid] = None
        elif isinstance(record, Dropped):
            self.live.pop(record.rid, None)

    async def synced(self) -> None:
        """Return once all that was written by now is on disk; one group is written while the next gathers."""
        length, rng, disk = len(self._disk.records), self._world.rng, self._disk
        async with self._syncing:
            if disk.synced < length:
                group = len(disk.records)
                stalled = (disk.stalled_until - self._world.now()) / MICROS
                await asyncio.sleep(max(stalled, rng.uniform(0.000_2, 0.004)))
                disk.synced = group
                self.arrived.set()

    def _append(self, usage: UsageRecorded) -> None:
        self._seq += 1
        me = self.identity
        stamped = msgspec.structs.replace(usage, edge=me.edge, epoch=me.epoch, spool_seq=self._seq)
        self._disk.records.append(stamped)
        self._queue(len(self._disk.records) - 1, stamped)

    def end(self, usage: UsageRecorded) -> None:
        """Close an attempt; durable after `synced`."""
        self.live.pop(usage.rid, None)
        self._append(usage)

    def publishable(self, most: int) -> list[UsageRecorded]:
        """The oldest ones that no power cut can take back: a number the broker has must not be given out again."""
        rash = self._world.mutant == "published_before_synced"
        ready = [record for place, record in self.outbox[:most] if rash or place < self._disk.synced]
        if not ready:
            self.arrived.clear()
        return ready

    def acked(self, count: int) -> None:
        """The broker has the oldest so many."""
        place, _ = self.outbox[count - 1]
        self.inherited = max(0, self.inherited - count)
        del self.outbox[:count]
        if self._world.rng.random() < 0.5:  # saved now and then
            self._disk.acked = place + 1
