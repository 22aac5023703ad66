"""How long a reader of a log has been behind it."""

from collections import deque

LOOKS_KEPT = 1_000  # after them a stalled reader's wait is still told; only what came later is dated by a later look


class Lag:
    """Sees the end of the log from time to time: a record is as old as the first look that saw it."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def look(self, end: int, position: int, now: float) -> float:
        """Seconds that the oldest record after `position` has waited; 0 where all that was seen is dealt with.

        end, position: sequences, of the log's last record and of the reader's.
        """
        if len(self._seen) < LOOKS_KEPT and (not self._seen or end > self._seen[-1][1]):
            self._seen.append((now, end))
        while self._seen and self._seen[0][1] <= position:
            self._seen.popleft()
        return now - self._seen[0][0] if self._seen else 0.0
