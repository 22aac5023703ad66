"""Where snapshots lie on the bus: one subject each, its parts in order, its manifest last; without one it does not count."""

import asyncio
import hashlib
import zlib
from collections.abc import Iterator
from contextlib import aclosing

import msgspec
import nats.errors
import nats.js.errors
import structlog
from ulid import ULID

from services.budget.core.snapshot import SHAPE, Captured, Manifest, restore, rid_parts, unsound
from services.budget.core.state import State
from shared.bus import Bus
from shared.contracts.message import Decoder, Micros, UnknownVersion, encode
from shared.contracts.streams import LEDGER, SNAPSHOT, SNAPSHOTS
from shared.errors import Unavailable

log = structlog.get_logger()

KEPT = 2
PART_BYTES = 512 * 1024  # the broker takes 1 MiB
READ_SECONDS = 60.0
READ_AHEAD = 32  # parts under way at once
_manifest = Decoder(Manifest)


class Unreadable(Exception):
    """This snapshot cannot be used; another, or the whole ledger, can."""


class Snapshot(msgspec.Struct, frozen=True):
    """One that was found. name: its subject; seq: where its manifest stands in SNAPSHOTS."""

    name: str
    seq: int
    manifest: Manifest


class Shelf:
    """The snapshots of one shard."""

    def __init__(self, bus: Bus, shard: str) -> None:
        self._bus = bus
        self._shard = shard
        self._stream = bus.names.stream(SNAPSHOTS)
        self._js = bus.client.jetstream(timeout=10)

    async def found(self) -> list[Snapshot]:
        """Those with a manifest, of this incarnation of the ledger, the newest first."""
        log_id = (await self._bus.end(LEDGER)).log_id
        snapshots = [await self._look(name) for name in await self._names()]
        whole = [one for one in snapshots if one and one.manifest.at.log_id == log_id]
        return sorted(whole, key=lambda one: (one.manifest.at.seq, one.name), reverse=True)

    async def _names(self) -> list[str]:
        filter_ = self._bus.names.subject(SNAPSHOT.format(shard=self._shard, id="*"))
        try:
            info = await self._js.stream_info(self._stream, subjects_filter=filter_)
        except nats.js.errors.NotFoundError:
            log.warning("budget.snapshots_have_no_stream")
            return []
        except (nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError) as error:
            raise Unavailable("bus") from error
        last = [name.rpartition(".")[2] for name in info.state.subjects or ()]
        return [SNAPSHOT.format(shard=self._shard, id=one) for one in last]

    async def _look(self, name: str) -> Snapshot | None:
        last = await self._bus.last(SNAPSHOTS, name)
        if last is None:
            return None
        try:
            return Snapshot(name, last.seq, _manifest.decode(last.data))
        except (msgspec.DecodeError, UnknownVersion):
            return None  # its owner died while it was writing, or a newer release wrote it

    async def read(self, snapshot: Snapshot) -> State:
        """Raises Unreadable: damaged, of another shape, or not of this ledger."""
        manifest = snapshot.manifest
        if manifest.shape != SHAPE:
            raise Unreadable("it was written by another release")
        await self._check_record(manifest)
        parts = await self._parts(snapshot)
        if hashlib.sha256(b"".join(parts)).digest() != manifest.checksum:
            raise Unreadable("its checksum differs")
        try:
            state = restore(b"".join(parts[: manifest.head_parts]), iter(parts[manifest.head_parts :]))
        except msgspec.DecodeError as error:
            raise Unreadable(str(error)) from error
        if problem := unsound(state):
            raise Unreadable(problem)
        return state

    async def _check_record(self, manifest: Manifest) -> None:
        """Whether the ledger's record there is the one it was made after."""
        try:
            found = await self._js.get_msg(self._bus.names.stream(LEDGER), seq=manifest.at.seq)
        except nats.js.errors.NotFoundError:
            raise Unreadable("the ledger ends before it") from None
        except (nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError) as error:
            raise Unavailable("bus") from error
        if hashlib.sha256(found.data or b"").digest() != manifest.digest:
            raise Unreadable("the ledger has another record there")

    async def _parts(self, snapshot: Snapshot) -> list[bytes]:
        packed: list[bytes] = []
        try:
            async with (
                asyncio.timeout(READ_SECONDS),
                aclosing(self._bus.follow(SNAPSHOTS, snapshot.name, batch=READ_AHEAD)) as lists,  # type: ignore[type-var]  # an async generator behind its interface
            ):
                async for messages in lists:
                    packed += [stored.data for stored in messages if stored.seq < snapshot.seq]
                    if messages[-1].seq >= snapshot.seq:
                        break
        except TimeoutError:
            raise Unreadable("it cannot be read in time") from None
        if len(packed) != snapshot.manifest.parts:
            raise Unreadable(f"{len(packed)} of {snapshot.manifest.parts} parts are there")
        try:
            return await asyncio.to_thread(lambda: [zlib.decompress(one) for one in packed])
        except zlib.error as error:
            raise Unreadable(str(error)) from error

    async def write(self, captured: Captured, now: Micros) -> Manifest:
        """Between any two parts other work runs; compressing, and waiting for the broker, keeps nobody else waiting."""
        name = SNAPSHOT.format(shard=self._shard, id=ULID())
        checksum, parts, head_parts = hashlib.sha256(), 0, 0
        for raw, is_head in _cut(captured):
            packed = await asyncio.to_thread(_pack, raw, checksum)
            await self._bus.append(name, packed, timeout=10)
            parts += 1
            head_parts += is_head
        manifest = Manifest(
            shard=self._shard,
            at=captured.at,
            digest=captured.digest,
            owner_epoch=captured.owner_epoch,
            shape=SHAPE,
            parts=parts,
            head_parts=head_parts,
            checksum=checksum.digest(),
            written_at=now,
        )
        await self._bus.append(name, encode(manifest), timeout=10)
        return manifest

    async def prune(self) -> None:
        """Keep the newest two. One without a manifest goes too: whoever was writing it is dead, for now we own the shard."""
        keep = {one.name for one in (await self.found())[:KEPT]}
        try:
            for name in await self._names():
                if name not in keep:
                    await self._js.purge_stream(self._stream, subject=self._bus.names.subject(name))
        except (nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError) as error:
            raise Unavailable("bus") from error


def _cut(captured: Captured) -> Iterator[tuple[bytes, bool]]:
    """The parts, and whether each belongs to the head."""
    for start in range(0, len(captured.head), PART_BYTES):
        yield captured.head[start : start + PART_BYTES], True
    for part in rid_parts(captured.settled):
        yield part, False


def _pack(raw: bytes, checksum: "hashlib._Hash") -> bytes:
    checksum.update(raw)
    return zlib.compress(raw, 1)
