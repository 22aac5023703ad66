"""The edge's own log: nothing that was sent upstream is forgotten, whatever dies.

A record is in the page cache when its call begins to wait (a killed process loses nothing), and on disk when the wait
ends (a power cut loses nothing).
"""

import asyncio
import os
from pathlib import Path

import msgspec
import structlog

from services.edge.core.journal import KIND_OF, Dropped, Opened, Progressed, Sent, Started
from services.edge.core.lifecycle import Identity, recovered, recovered_request
from services.edge.core.usage import Usage
from services.edge.stores import spool_folder
from services.edge.stores.outbox import Outbox, Pending
from services.edge.stores.segment import Place, SegmentLog, SpoolFailed, Sync
from shared import clock
from shared.contracts.edge import RequestCompleted, UsageRecorded
from shared.contracts.message import Message, encode

log = structlog.get_logger()

MICROS = 1_000_000
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
        self._log = SegmentLog(folder, segment_bytes, sync)
        self.outbox = Outbox(self._log)
        self._live: dict[str, _Live] = {}
        self._segments: list[int] = []
        self._usage_seq: dict[str, int] = {}
        self._request_seq = 0
        self._inherited = 0
        self._space_seen_at = self._acked_saved_at = 0
        self._full = ""
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
            self._segments = left.segments
            self._log.begin(max(left.segments, default=0) + 1)
            for pending in left.pending:
                self.outbox.add(pending)
            self._append(Opened(epoch=epoch, boot_id=boot_id, at=self._now()))
            self._recover(left)
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
            self.completed(recovered_request(tuple(attempts), self.identity, now))

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
        return self._log.failed or self._full

    def start(self, started: Started) -> "asyncio.Future[None]":
        """Before or while an attempt is reserved; durable when the future is done. Both raise SpoolFailed."""
        self._check_space()
        place = self._write(started)
        self._live[started.usage.rid] = _Live(place.segment, started)
        return self._log.synced()

    def sent(self, record: Sent) -> None:
        """Right before the first byte goes upstream, after `start` has returned. Raises SpoolFailed: then do not send.

        It does not wait for the disk: a killed process does not lose it, and after a power cut every start counts as sent.
        """
        self._write(record)
        self._live[record.usage.rid].sent = record

    def progress(self, rid: str, usage: Usage) -> None:
        """What the answer has shown: at message_start, then now and again. Never fails."""
        if rid not in self._live:
            return
        record = Progressed(
            rid=rid, lines=usage.lines, response_model=usage.response_model, provider_usage=usage.provider_usage
        )
        try:
            self._write(record)
        except SpoolFailed:
            return  # the end will tell
        self._live[rid].progressed = record

    def drop(self, rid: str) -> None:
        """The owner denied it: there is nothing to close. Never fails."""
        if self._live.pop(rid, None):
            try:
                self._write(Dropped(rid=rid))
            except SpoolFailed:
                return  # after a crash it is closed as void, which changes nothing

    async def end(self, usage: UsageRecorded) -> UsageRecorded:
        """Close an attempt; durable on return. Returns the record as published, with its spool_seq.

        Raises SpoolFailed; even then it is on its way to the broker, from memory.
        """
        self._live.pop(usage.rid, None)
        try:
            record = self._append_usage(usage)
        except OSError as error:
            record = self._stamped(usage)
            self.outbox.add(_pending(record, encode(record), None))
            raise self._refused(error) from error
        await self._log.synced()
        return record

    def completed(self, request: RequestCompleted) -> None:
        """One per client request. Returns at once and never fails: nothing waits for it."""
        self._request_seq += 1
        record = msgspec.structs.replace(
            request, edge=self.identity.edge, epoch=self.identity.epoch, spool_seq=self._request_seq
        )
        data, place = encode(record), None
        try:
            place = self._append_encoded(RequestCompleted, data)
        except OSError as error:
            self._refused(error)
        self.outbox.add(Pending(kind="request", message_id=record.request_id, place=place, data=data))

    def acked(self, count: int) -> None:
        """The broker has the oldest `count` of the outbox; what nobody needs any more is removed."""
        self.outbox.done(count)
        self._inherited = max(0, self._inherited - count)
        if self._now() - self._acked_saved_at > MICROS:
            self._save_acked()
        if self._pruner is None and len(self._segments) > 0:
            self._pruner = asyncio.create_task(self._prune())

    async def close(self) -> None:
        """Sync, remember what the broker has, let the folder go."""
        if self._pruner:
            await self._pruner
        await self._log.close()
        self._save_acked()
        os.close(self._lock)

    def _append(self, record: Message) -> Place:
        return self._append_encoded(type(record), encode(record))

    def _append_encoded(self, kind: type[Message], data: bytes) -> Place:
        before = self._log.number
        place = self._log.append(KIND_OF[kind] + data)
        if place.segment != before:
            self._segments.append(before)
        self._full = ""
        return place

    def _write(self, record: Message) -> Place:
        if self._log.failed:
            raise SpoolFailed(self._log.failed)
        try:
            return self._append(record)
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> SpoolFailed:
        self._full = str(error)
        log.error("edge.spool_failed", reason=self._full)
        return SpoolFailed(self._full)

    def _append_usage(self, usage: UsageRecorded) -> UsageRecorded:
        """The sequence number is taken only once the record is written, so that there is no gap."""
        record = self._stamped(usage)
        data = encode(record)
        try:
            place = self._append_encoded(UsageRecorded, data)
        except OSError:
            self._usage_seq[record.shard] -= 1
            raise
        self.outbox.add(_pending(record, data, place))
        return record

    def _stamped(self, usage: UsageRecorded) -> UsageRecorded:
        """Numbered for each shard, so that its owner can see that nothing is missing."""
        seq = self._usage_seq[usage.shard] = self._usage_seq.get(usage.shard, 0) + 1
        return msgspec.structs.replace(usage, edge=self.identity.edge, epoch=self.identity.epoch, spool_seq=seq)

    def _check_space(self) -> None:
        """Refuse new attempts while the ends of those in flight still fit."""
        now = self._now()
        if now - self._space_seen_at > MICROS:
            self._space_seen_at = now
            disk = os.statvfs(self._folder)
            self._full = "the disk is nearly full" if disk.f_bavail * disk.f_frsize < self._reserve_bytes else ""
        if self._full:
            raise SpoolFailed(self._full)

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
            while self._segments and self.outbox.clean(oldest := self._segments[0]):
                if any(live.segment <= oldest for live in self._live.values()):
                    if len(self._segments) <= SEGMENTS_KEPT_FOR_LIVE:
                        return
                    self._carry_on(oldest)
                await self._log.synced()
                self._log.remove(oldest)
                self.outbox.forget(oldest)
                self._segments.remove(oldest)
        except (SpoolFailed, OSError) as error:
            log.error("edge.spool_not_pruned", reason=str(error))
        finally:
            self._pruner = None

    def _carry_on(self, oldest: int) -> None:
        """Write what still lives in the oldest segment anew."""
        for live in self._live.values():
            if live.segment <= oldest:
                live.segment = self._write(live.started).segment
                for record in (live.sent, live.progressed):
                    if record is not None:
                        self._write(record)


def _pending(usage: UsageRecorded, data: bytes, place: Place | None) -> Pending:
    message_id = spool_folder.usage_id(usage)
    return Pending(kind="usage", message_id=message_id, place=place, data=data, shard=usage.shard)
