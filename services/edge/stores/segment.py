"""The spool's files: append-only segments of `length | crc32 | payload`, little endian, synced in groups."""

import asyncio
import errno
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec

from services.edge.stores.disk_thread import DiskThread

_HEADER = struct.Struct("<II")
SUFFIX = ".spool"

Sync = Callable[[int], None]
"""Brings a file's data to disk, as os.fdatasync does."""


class SpoolFailed(Exception):
    """The spool cannot be written or synced: nothing governed may be sent."""


class Place(msgspec.Struct, frozen=True):
    """Where a record's payload stands."""

    segment: int
    offset: int
    length: int


class Segment:
    """One file, open for appending."""

    def __init__(self, folder: Path, number: int) -> None:
        self.number = number
        self.fd = os.open(path_of(folder, number), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self.size = 0

    def append(self, payload: bytes) -> Place:
        """Into the page cache. Raises OSError and leaves no torn record."""
        frame = _HEADER.pack(len(payload), zlib.crc32(payload)) + payload
        try:
            if os.write(self.fd, frame) != len(frame):
                raise OSError(errno.ENOSPC, "no space for the whole record")
        except OSError:
            os.ftruncate(self.fd, self.size)
            raise
        place = Place(self.number, self.size + _HEADER.size, len(payload))
        self.size += len(frame)
        return place


def path_of(folder: Path, number: int) -> Path:
    return folder / f"{number:012d}{SUFFIX}"


def numbers(folder: Path) -> list[int]:
    """Segments there are, oldest first."""
    return sorted(int(path.stem) for path in folder.glob(f"*{SUFFIX}"))


def scan(folder: Path, number: int) -> tuple[list[tuple[Place, bytes]], int]:
    """All good records of a segment, and how many bytes after them are torn."""
    data = path_of(folder, number).read_bytes()
    found = list(_records(number, data))
    good = found[-1][0].offset + found[-1][0].length if found else 0
    return found, len(data) - good


def _records(number: int, data: bytes) -> Iterator[tuple[Place, bytes]]:
    at = 0
    while at + _HEADER.size <= len(data):
        length, crc = _HEADER.unpack_from(data, at)
        at += _HEADER.size
        payload = data[at : at + length]
        if not length or len(payload) < length or zlib.crc32(payload) != crc:
            return
        yield Place(number, at, length), payload
        at += length


class SegmentLog:
    """Segments in order, the last one written to. Writing never waits for the disk; `synced` does, in groups."""

    def __init__(self, folder: Path, segment_bytes: int, sync: Sync = os.fdatasync) -> None:
        self._folder, self._segment_bytes, self._sync = folder, segment_bytes, sync
        self._segment: Segment | None = None
        self._full: list[Segment] = []
        self._new_file = False
        self._waiters: list[asyncio.Future[None]] = []
        self._group: list[asyncio.Future[None]] = []
        self._syncing = False
        self._thread = DiskThread()
        self.failed = ""

    @property
    def number(self) -> int:
        """Of the segment that is written to."""
        assert self._segment is not None
        return self._segment.number

    def begin(self, number: int) -> None:
        """Open a new segment. Raises OSError."""
        segment = Segment(self._folder, number)
        if self._segment is not None:
            self._full.append(self._segment)
        self._segment, self._new_file = segment, True

    def append(self, payload: bytes) -> Place:
        """Raises OSError; the log stays good."""
        assert self._segment is not None
        if self._segment.size >= self._segment_bytes:
            self.begin(self._segment.number + 1)
        return self._segment.append(payload)

    def synced(self) -> "asyncio.Future[None]":
        """Done once all that is appended so far is on disk; else SpoolFailed, and then for ever.

        After a failed sync nobody knows what reached the disk: only a restart, which reads it, can go on.
        """
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.failed:
            waiter.set_exception(SpoolFailed(self.failed))
            return waiter
        self._waiters.append(waiter)
        if not self._syncing:
            self._syncing = True
            asyncio.get_running_loop().call_soon(self._sync_group)  # with all that others append in this turn
        return waiter

    def _sync_group(self) -> None:
        """While one group is being synced the next one gathers."""
        self._group, self._waiters = self._waiters, []
        full, self._full = self._full, []
        new_file, self._new_file = self._new_file, False
        assert self._segment is not None
        self._thread.run(partial(self._sync_all, full, self._segment.fd, new_file), self._synced_group)

    def _synced_group(self, error: OSError | None) -> None:
        if error:
            self.failed = str(error)
        for waiter in self._group:
            self._wake(waiter)
        if self._waiters:
            self._sync_group()
        else:
            self._syncing = False

    def _wake(self, waiter: "asyncio.Future[None]") -> None:
        if waiter.done():
            return  # whoever waited is gone
        if self.failed:
            waiter.set_exception(SpoolFailed(self.failed))
        else:
            waiter.set_result(None)

    def _sync_all(self, full: list[Segment], fd: int, new_file: bool) -> None:
        for segment in full:
            self._sync(segment.fd)
            os.close(segment.fd)
        self._sync(fd)
        if new_file:
            sync_folder(self._folder)

    def sync_now(self) -> None:
        """For start and stop, when no loop waits. Raises OSError."""
        full, self._full = self._full, []
        assert self._segment is not None
        self._sync_all(full, self._segment.fd, True)

    def read(self, place: Place) -> bytes:
        with path_of(self._folder, place.segment).open("rb") as file:
            file.seek(place.offset)
            return file.read(place.length)

    def remove(self, number: int) -> None:
        path_of(self._folder, number).unlink(missing_ok=True)

    async def close(self) -> None:
        """Sync what is left, then release the files."""
        if self._syncing:
            await asyncio.gather(self.synced(), return_exceptions=True)
        self._thread.end()
        for segment in (*self._full, *((self._segment,) if self._segment else ())):
            os.close(segment.fd)


def sync_folder(folder: Path) -> None:
    """Make the folder's own entries durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
