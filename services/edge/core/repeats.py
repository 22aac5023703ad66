"""Recognises the client's own retries, so that a storm of them counts as one request."""

from collections import OrderedDict

import msgspec

Mark = tuple[str, str, str, bytes]
"""Key, session, agent and digest of the messages: clients send no other sign of a repeat (contract 3.2)."""

WINDOW_MICROS = 120_000_000
"""Above the longest wait between two tries of the client: it sleeps up to 60 s for a `retry-after` (contract 3.3)."""
MOST_RETRIES = 15
"""As many as the client can be told to make; whoever sends one body more often counts again."""


class Seen(msgspec.Struct):
    """One mark. failed: the provider failed the last post of it; retries: posts since that take no quota."""

    at: int
    failed: bool = False
    retries: int = 0


class Repeats:
    """What was seen within the window, at most so many marks."""

    def __init__(self, most: int = 20_000) -> None:
        self._seen: OrderedDict[Mark, Seen] = OrderedDict()
        self._most = most

    def is_repeat(self, mark: Mark, now: int) -> bool:
        """Whether it was seen within the window; it is from now on. now: microseconds."""
        before = self._seen.pop(mark, None)
        if before is None or before.at <= now - WINDOW_MICROS:
            self._seen[mark] = Seen(now)
            repeat = False
        else:
            before.at = now
            self._seen[mark] = before
            repeat = True
        while len(self._seen) > self._most or next(iter(self._seen.values())).at <= now - WINDOW_MICROS:
            self._seen.popitem(last=False)
        return repeat

    def is_retry(self, mark: Mark) -> bool:
        """Whether this post tries again what the provider has failed: its request has counted already.

        Asked once for each post. What was answered, refused here or hung up on is no failure of the provider, and a
        second post beside the first is none: else sending one body over and over would be outside all quotas.
        """
        seen = self._seen.get(mark)
        if seen is None:
            return False
        retry = seen.failed and seen.retries < MOST_RETRIES
        seen.failed = False
        seen.retries = seen.retries + 1 if retry else 0
        return retry

    def failed(self, mark: Mark) -> None:
        """It was admitted, and the provider has failed."""
        if seen := self._seen.get(mark):
            seen.failed = True
