"""How long a run is, where it begins, and what it says: CHAOS_SECONDS (60; 20 in CI), CHAOS_SEED (printed; a random one)."""

import os
import secrets


def seconds() -> float:
    """Of hostility in a kill loop, and of the broker's absence."""
    return float(os.environ.get("CHAOS_SECONDS", "60"))


def seed() -> int:
    """Decides who is killed and when, and what the traffic is. Processes run as they please, so it repeats no run exactly."""
    return int(os.environ.get("CHAOS_SEED") or secrets.randbelow(1_000_000))


def say(text: str) -> None:
    """A figure to report; `make chaos` shows it."""
    print(f"\n{text}", flush=True)  # noqa: T201  # the suite's own output
