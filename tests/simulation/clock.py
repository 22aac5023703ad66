"""An event loop whose time is a number: it jumps to the next timer instead of waiting, and knows no socket."""

import asyncio
import math
from typing import Any

EPOCH = 1_795_255_200_000_000  # 2026-11-21T10:00:00Z, where every simulation begins
MICROS = 1_000_000


class Idle(Exception):
    """Nothing is ready and no timer is set: nothing will ever happen again."""


class _Timers:
    """Stands where a loop has its selector: to wait for files is to move the clock."""

    def __init__(self, micros: int) -> None:
        self.micros = micros

    def select(self, timeout: float | None) -> list[object]:
        if timeout is None:
            raise Idle
        if timeout > 0:
            self.micros += max(1, math.ceil(timeout * MICROS))
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """asyncio with its ready queue and timers, first come first served: the same program runs the same way every time."""

    def __init__(self, seconds: int = 0) -> None:
        super().__init__()
        self._selector = _Timers(seconds * MICROS)

    def time(self) -> float:
        return self._selector.micros / MICROS

    def micros(self) -> int:
        """Since 1970, for records."""
        return EPOCH + self._selector.micros

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """There is no thread to wake us from."""


def end_all(loop: VirtualLoop) -> None:
    """Cancel what still runs, so that nothing is left to the garbage collector's mood."""
    for _ in range(5):
        left = asyncio.all_tasks(loop)
        if not left:
            break
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    loop.close()
