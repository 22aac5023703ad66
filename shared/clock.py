"""Time is UTC, in microseconds. Cores take `now`; shells take a Clock."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache

Clock = Callable[[], int]


def now() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1_000


def rfc3339(micros: int) -> str:
    """`2026-11-21T09:30:00.123456Z`; empty for 0, which means it did not happen."""
    if not micros:
        return ""
    return f"{_second(micros // 1_000_000)}.{micros % 1_000_000:06d}Z"


@lru_cache(maxsize=1024)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def parse(text: str) -> int:
    """Microseconds of an RFC 3339 instant or an ISO date (its start in UTC). Raises ValueError."""
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    whole = int(at.replace(microsecond=0).timestamp())
    return whole * 1_000_000 + at.microsecond
