"""The thread that waits for the disk, one job at a time; a plainer hand-over than an executor's, since it is one per group."""

import asyncio
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread

Work = Callable[[], None]
Done = Callable[[OSError | None], None]


class DiskThread:
    """Started with the first job, so that a log without any has none."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[tuple[Work, Done, asyncio.AbstractEventLoop] | None] = SimpleQueue()
        self._thread: Thread | None = None

    def run(self, work: Work, done: Done, loop: asyncio.AbstractEventLoop) -> None:
        """`done` is called in this event loop, with what went wrong."""
        if self._thread is None:
            self._thread = Thread(target=self._work, name="spool-sync", daemon=True)
            self._thread.start()
        self._jobs.put((work, done, loop))

    def end(self) -> None:
        """Blocks until the job under way is done."""
        if self._thread:
            self._jobs.put(None)
            self._thread.join()

    def _work(self) -> None:
        while job := self._jobs.get():
            work, done, loop = job
            failed: OSError | None = None
            try:
                work()
            except OSError as error:
                failed = error
            if loop.is_closed():
                return  # nobody is left to tell: the process ends without having closed its log
            loop.call_soon_threadsafe(done, failed)
