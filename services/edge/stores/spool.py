"""The edge's own log: nothing that was sent upstream is forgotten, whatever dies.

A record is in the page cache at the end of the turn of the loop in which it is written, or at once where the call says
so: before anything that depends on it happens, so that a killed process loses nothing. Where a call waits for it, it is on
disk when the wait ends, so that a power cut loses nothing.
"""

import asyncio
import os
from pathlib import Path

import msgspec
import structlog

from services.edge.core.journal import KIND_OF, Departed, Dropped, Opened, Progressed, Sent, Started
from services.edge.core.lifecycle import Identity, recovered, recovered_request
from services.edge.core.usage import Usage
from services.edge.stores import spool_folder
from services.edge.stores.outbox import Outbox, Pending
from services.edge.stores.segment import Place, SpoolFailed, Sync
from services.edge.stores.segment_log import SegmentLog, Written, unheeded
from shared import clock
from shared.contracts.edge import RequestCompleted, UsageRecorded
from shared.contracts.message import Message, encode

log = structlog.get_logger()

MICROS = 1_000_000
CROWD = 8  # attempts in flight; fewer do not wait for each other's syncs
SEGMENTS_KEPT_FOR_LIVE = 2  # an attempt that lives longer is written anew, so that its segment can go

__all__ = ["Spool", "SpoolFailed"]


class _Live(msgspec.Struct):
    """An attempt whose end is not written: its records, and the segment that holds the first of them."""

    segment: int
    started: Started
    sent: Sent | None = None
    progressed: Progressed | None = None


class Spool:
    """One worker's spool. After `open`, all calls belong to the event loop."""

    identity: Identity
    outbox: Outbox

    def __init__(
        self,
        folder: Path,
        *,
        segment_bytes: int = 32 * 1024 * 1024,
        reserve_bytes: int = 64 * 1024 * 1024,
        now: clock.Clock = clock.now,
        sync: Sync = os.fdatasync,
    ) -> None:
        self._folder, self._reserve_bytes, self._now = folder, reserve_bytes, now
        self._log = SegmentLog(folder, segment_bytes, sync, lambda: len(self._live) >= CROWD)
        self.outbox = Outbox(self._log)
        self._live: dict[str, _Live] = {}
        self._usage_seq: dict[str, int] = {}
        self._request_seq = 0
        self._inherited = 0
        self._space_seen_at = self._acked_saved_at = 0
        self._nearly_full = ""
        self._pruner: asyncio.Task[None] | None = None
        self._lock = -1

    def open(self) -> None:
        """Take the folder, close what the last process left open, begin a new segment. Blocks; durable on return.

        Raises SpoolFailed when another worker uses the folder, or it cannot be written.
        """
        try:
            self._lock = spool_folder.lock(self._folder)
            edge, epoch = spool_folder.identity(self._folder)
            self.identity = Identity(edge=edge, epoch=epoch)
            boot_id = spool_folder.boot_id()
            left = spool_folder.read(self._folder, boot_id)
            self._log.older = left.segments
            self._log.begin(max(left.segments, default=0) + 1)
            for pending in left.pending:
                self.outbox.add(pending)
            self._append(Opened(epoch=epoch, boot_id=boot_id, at=self._now()))
            self._recover(left)
            self._log.flush()
            if self._log.full:
                raise SpoolFailed(self._log.full)
            self._inherited = len(self.outbox)
            self._log.sync_now()
        except OSError as error:
            raise SpoolFailed(str(error)) from error

    def _recover(self, left: spool_folder.Left) -> None:
        now = self._now()
        for unfinished in left.unfinished:
            usage = recovered(unfinished, self.identity, now)
            log.info("edge.attempt_recovered", rid=usage.rid, kind=usage.kind)
            left.unreported.setdefault(usage.request_id, []).append(self._append_usage(usage))
        for attempts in left.unreported.values():
            self._append_request(recovered_request(tuple(attempts), self.identity, now))

    @property
    def live(self) -> tuple[str, ...]:
        """Attempts that are started and not ended: the inventory that keeps their holds alive."""
        return tuple(self._live)

    def org_of(self, rid: str) -> str:
        """Whose attempt it is; "" once its end is written."""
        live = self._live.get(rid)
        return live.started.usage.principal.org if live else ""

    @property
    def delivered_epoch(self) -> int:
        """The last of this worker's starts of which the broker has every record; 0 while that is not known."""
        return 0 if self._inherited else self.identity.epoch - 1

    @property
    def failed(self) -> str:
        """Why nothing governed may pass now; empty when all is well."""
        return self._log.failed or self._log.full or self._nearly_full

    def start(self, started: Started) -> "asyncio.Future[None]":
        """Before or while an attempt is reserved; durable when the future is done. Both raise SpoolFailed."""
        self._check_space()
        self._begin(started)
        return self._log.synced()

    def _begin(self, started: Started) -> None:
        live = self._live[started.usage.rid] = _Live(self._log.number, started)

        def written(place: Place | None) -> None:
            if place is not None:
                live.segment = place.segment

        self._write(started, written)

    def sent(self, record: Sent) -> None:
        """Right before the first byte goes upstream, after `start`. Raises SpoolFailed: then do not send.

        It does not wait for the disk: a killed process does not lose it, and after a power cut every start counts as sent.
        """
        self._live[record.usage.rid].sent = record
        self._append(record)
        self._log.write_now()

    def raised(self, record: Sent) -> None:
        """An attempt that was sent may cost more now. Never fails: the end goes out from memory."""
        if live := self._live.get(record.usage.rid):
            live.sent = record
            self._write(record)

    def progress(self, rid: str, usage: Usage) -> None:
        """What the answer has shown: at message_start, then now and again. Never fails."""
        if live := self._live.get(rid):
            live.progressed = Progressed(
                rid=rid, lines=usage.lines, response_model=usage.response_model, provider_usage=usage.provider_usage
            )
            self._write(live.progressed)

    def drop(self, rid: str) -> None:
        """The owner denied it: there is nothing to close. Never fails: what a crash closes as void changes nothing."""
        if self._live.pop(rid, None):
            self._write(Dropped(rid=rid))

    async def end(self, usage: UsageRecorded) -> UsageRecorded:
        """Close an attempt; durable on return. Returns the record as published, with its spool_seq.

        Raises SpoolFailed; even then it is on its way to the broker, from memory.
        """
        self._live.pop(usage.rid, None)
        record = self._append_usage(usage)
        self._log.flush_soon()
        await self._log.synced()
        return record

    def completed(self, request: RequestCompleted) -> None:
        """One per client request. Returns at once and never fails: nothing waits for it."""
        self._append_request(request)
        self._log.flush_soon()

    def departing(self, window: list[Pending]) -> "asyncio.Future[None]":
        """Before they are published; durable when it is done: even after a power cut they leave in the same company.

        SpoolFailed when it is awaited: then the broker may get them twice.
        """
        self._append(Departed(ids=tuple(pending.message_id for pending in window)))
        return self._log.synced()

    def acked(self, count: int) -> None:
        """The broker has the oldest `count` of the outbox; what nobody needs any more is removed."""
        self.outbox.done(count)
        self._inherited = max(0, self._inherited - count)
        if self._now() - self._acked_saved_at > MICROS:
            self._save_acked()
        if self._pruner is None and self._log.older:
            self._pruner = asyncio.create_task(self._prune())

    async def close(self) -> None:
        """Sync, remember what the broker has, let the folder go."""
        if self._pruner:
            await self._pruner
        await self._log.close()
        self._save_acked()
        os.close(self._lock)

    def _append(self, record: Message, written: Written = unheeded) -> bytes:
        data = encode(record)
        self._log.append(KIND_OF[type(record)] + data, written)
        return data

    def _write(self, record: Message, written: Written = unheeded) -> None:
        """At the end of this turn of the loop, with all else that is written in it."""
        self._append(record, written)
        self._log.flush_soon()

    def _append_usage(self, usage: UsageRecorded) -> UsageRecorded:
        """Numbered for each shard, so that its owner can see that nothing is missing."""
        seq = self._usage_seq[usage.shard] = self._usage_seq.get(usage.shard, 0) + 1
        record = msgspec.structs.replace(usage, edge=self.identity.edge, epoch=self.identity.epoch, spool_seq=seq)
        message_id = spool_folder.usage_id(record)
        self._publish(record, Pending(kind="usage", message_id=message_id, place=None, data=None, shard=record.shard))
        return record

    def _append_request(self, request: RequestCompleted) -> None:
        self._request_seq += 1
        record = msgspec.structs.replace(
            request, edge=self.identity.edge, epoch=self.identity.epoch, spool_seq=self._request_seq
        )
        self._publish(record, Pending(kind="request", message_id=record.request_id, place=None, data=None))

    def _publish(self, record: Message, pending: Pending) -> None:
        """To the broker once it is in the page cache; from memory where it cannot be written."""

        def written(place: Place | None) -> None:
            if place is None:
                log.error("edge.spool_failed", reason=self._log.full)
            pending.place = place
            self.outbox.add(pending)

        pending.data = self._append(record, written)

    def _check_space(self) -> None:
        """Refuse new attempts while the ends of those in flight still fit."""
        if self._log.failed:
            raise SpoolFailed(self._log.failed)
        now = self._now()
        if now - self._space_seen_at > MICROS:
            self._space_seen_at = now
            disk = os.statvfs(self._folder)
            room = disk.f_bavail * disk.f_frsize
            self._nearly_full = "the disk is nearly full" if room < self._reserve_bytes else ""
            self._log.full = ""  # tried again once a second, if nothing else has been written meanwhile
        if self.failed:
            raise SpoolFailed(self.failed)

    def _save_acked(self) -> None:
        self._acked_saved_at = self._now()
        if self.outbox.acked:
            try:
                spool_folder.save_acked(self._folder, self.outbox.acked)
            except OSError:
                log.warning("edge.spool_hint_lost")

    async def _prune(self) -> None:
        """Remove segments from the oldest on: an end must never go while its start stays."""
        try:
            while (older := self._log.older) and self.outbox.clean(oldest := older[0]):
                if any(live.segment <= oldest for live in self._live.values()):
                    if len(older) <= SEGMENTS_KEPT_FOR_LIVE:
                        return
                    self._carry_on(oldest)
                await self._log.synced()
                self._log.remove_oldest()
                self.outbox.forget(oldest)
        except (SpoolFailed, OSError) as error:
            log.error("edge.spool_not_pruned", reason=str(error))
        finally:
            self._pruner = None

    def _carry_on(self, oldest: int) -> None:
        """Write what still lives in the oldest segment anew. Raises SpoolFailed."""
        for live in list(self._live.values()):
            if live.segment <= oldest:
                self._begin(live.started)
                again = self._live[live.started.usage.rid]
                again.sent, again.progressed = live.sent, live.progressed
                for record in (live.sent, live.progressed):
                    if record is not None:
                        self._write(record)
        self._log.flush()
        if self._log.full:
            raise SpoolFailed(self._log.full)
