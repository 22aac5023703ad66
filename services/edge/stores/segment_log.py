"""Segments in order, the last one written to: what one turn of the loop appends is one write, and is synced in groups.

Writing never waits for the disk; `synced` does.
"""

import asyncio
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from services.edge.stores.disk_thread import DiskThread
from services.edge.stores.segment import Place, Segment, SpoolFailed, Sync, path_of, sync_folder

PACE_SECONDS = 0.003
"""A sync costs the processor a good part of what a request does: in a crowd there is one in so long a time, for all of them."""

Written = Callable[[Place | None], None]
"""Told where the record stands in the page cache; None when it could not be written."""

Waiters = list["asyncio.Future[None]"]


def unheeded(place: Place | None) -> None:
    """For a record that nobody needs to find again."""


class SegmentLog:
    """Belongs to the event loop, or to a thread that calls `flush` and `sync_now` itself.

    full: why the last write failed; the next one may succeed. failed: why a sync did; nothing can be written any more.
    older: segments that are not written to any more, oldest first.
    """

    def __init__(
        self, folder: Path, segment_bytes: int, sync: Sync = os.fdatasync, crowded: Callable[[], bool] = lambda: False
    ) -> None:
        self._loop = asyncio.get_running_loop()  # kept wherever a request passes: asking for it is a system call
        self._folder, self._segment_bytes, self._sync = folder, segment_bytes, sync
        self._crowded = crowded
        self._segment: Segment | None = None
        self._ended: list[Segment] = []
        self._new_file = False
        self._appended: list[tuple[bytes, Written]] = []
        self._for_disk: Waiters = []
        self._flushing = False
        self._waiters: Waiters = []
        self._group: Waiters = []
        self._syncing = False
        self._began = 0.0
        self._thread = DiskThread()
        self.full = self.failed = ""
        self.older: list[int] = []

    @property
    def number(self) -> int:
        """Of the segment that is written to."""
        assert self._segment is not None
        return self._segment.number

    def begin(self, number: int) -> None:
        """Open a new segment. Raises OSError."""
        segment = Segment(self._folder, number)
        if self._segment is not None:
            self._ended.append(self._segment)
            self.older.append(self._segment.number)
        self._segment, self._new_file = segment, True

    def append(self, payload: bytes, written: Written = unheeded) -> None:
        """Written at the next `flush`, with all else that is appended until then."""
        self._appended.append((payload, written))

    def flush_soon(self) -> None:
        """At the end of this turn of the loop."""
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write what was appended, all of it or nothing; then tell."""
        self._flushing = False
        if not self._appended:
            return
        appended, self._appended = self._appended, []
        disk, self._for_disk = self._for_disk, []
        try:
            places: list[Place] | list[None] = self._write([payload for payload, _ in appended])
            self.full = ""
        except OSError as error:
            places = [None] * len(appended)
            self.full = str(error)
        for (_, written), place in zip(appended, places, strict=True):
            written(place)
        if self.full:
            _wake(disk, self.full)
        else:
            self._waiters += disk

    def _write(self, payloads: list[bytes]) -> list[Place]:
        assert self._segment is not None
        if self._segment.size >= self._segment_bytes:
            self.begin(self._segment.number + 1)
        return self._segment.append(payloads)

    def write_now(self) -> None:
        """All that was appended is in the page cache when it returns. Raises SpoolFailed."""
        self.flush()
        if self.full:
            raise SpoolFailed(self.full)

    def synced(self) -> "asyncio.Future[None]":
        """Done once all that is appended so far is on disk; else SpoolFailed, and after a failed sync for ever.

        After that nobody knows what reached the disk: only a restart, which reads it, can go on.
        """
        waiter: asyncio.Future[None] = self._loop.create_future()
        if self.failed:
            _wake([waiter], self.failed)
            return waiter
        (self._for_disk if self._appended else self._waiters).append(waiter)
        if not self._syncing:
            self._syncing = True
            self._sync_soon()
        return waiter

    def _sync_soon(self) -> None:
        """With all that others append in this turn; in a crowd, with all that they append until it is time."""
        at = self._began + PACE_SECONDS
        if self._crowded() and at > self._loop.time():
            self._loop.call_at(at, self._sync_group)
        else:
            self._loop.call_soon(self._sync_group)

    def _sync_group(self) -> None:
        """While one group is being synced the next one gathers."""
        self.flush()
        self._group, self._waiters = self._waiters, []
        ended, self._ended = self._ended, []
        new_file, self._new_file = self._new_file, False
        assert self._segment is not None
        self._began = self._loop.time()
        work = partial(self._sync_all, ended, self._segment.fd, new_file)
        self._thread.run(work, self._synced_group, self._loop)

    def _synced_group(self, error: OSError | None) -> None:
        if error:
            self.failed = str(error)
        group, self._group = self._group, []
        _wake(group, self.failed)
        if self._waiters or self._for_disk:
            self._sync_soon()
        else:
            self._syncing = False

    def _sync_all(self, ended: Iterable[Segment], fd: int, new_file: bool) -> None:
        for segment in ended:
            self._sync(segment.fd)
            os.close(segment.fd)
        self._sync(fd)
        if new_file:
            sync_folder(self._folder)

    def sync_now(self) -> None:
        """For start and stop, when no loop waits. Raises OSError."""
        ended, self._ended = self._ended, []
        assert self._segment is not None
        self._sync_all(ended, self._segment.fd, True)

    def read(self, place: Place) -> bytes:
        with path_of(self._folder, place.segment).open("rb") as file:
            file.seek(place.offset)
            return file.read(place.length)

    def remove_oldest(self) -> None:
        """Of the older ones. Raises OSError."""
        path_of(self._folder, self.older[0]).unlink(missing_ok=True)
        del self.older[0]

    async def close(self) -> None:
        """Sync what is left, then release the files."""
        self.flush()
        if self._syncing:
            await asyncio.gather(self.synced(), return_exceptions=True)
        self._thread.end()
        for segment in (*self._ended, *((self._segment,) if self._segment else ())):
            os.close(segment.fd)


def _wake(waiters: Waiters, failed: str) -> None:
    for waiter in waiters:
        if waiter.done():
            continue  # whoever waited is gone
        if failed:
            waiter.set_exception(SpoolFailed(failed))
        else:
            waiter.set_result(None)
