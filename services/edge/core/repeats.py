"""Recognises the client's own retries, so that a storm of them counts as one request."""

from collections import OrderedDict

Mark = tuple[str, str, str, bytes]
"""Key, session, agent and digest of the messages: clients send no other sign of a repeat (contract 3.2)."""

WINDOW_MICROS = 120_000_000
"""Above the longest wait between two tries of the client: it sleeps up to 60 s for a `retry-after` (contract 3.3)."""


class Repeats:
    """What was seen within the window, at most so many marks."""

    def __init__(self, most: int = 20_000) -> None:
        self._seen: OrderedDict[Mark, int] = OrderedDict()
        self._most = most

    def is_repeat(self, mark: Mark, now: int) -> bool:
        """Whether it was seen within the window; it is from now on. now: microseconds."""
        before = self._seen.pop(mark, None)
        self._seen[mark] = now
        while len(self._seen) > self._most or next(iter(self._seen.values())) <= now - WINDOW_MICROS:
            self._seen.popitem(last=False)
        return before is not None and before > now - WINDOW_MICROS
