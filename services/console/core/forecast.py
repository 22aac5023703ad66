"""Where a budget will stand at the end of its period, at the pace so far."""

from shared import clock

LEAST_SHARE = 50  # below 1/50 of the period the pace is noise


def forecast_nano_usd(spent: int, period_id: str, resets_at: int, now: int) -> int | None:
    """None for a budget that never resets, and at the very start of a period."""
    start = period_start(period_id)
    if not resets_at or start is None:
        return None
    whole, gone = resets_at - start, now - start
    if whole <= 0 or gone * LEAST_SHARE < whole:
        return None
    return spent * whole // min(gone, whole)


def period_start(period_id: str) -> int | None:
    """Microseconds; the id of a period is the RFC 9557 text of its start (`2026-11-01T00:00:00+01:00[Europe/Berlin]`)."""
    try:
        return clock.parse(period_id.partition("[")[0])
    except ValueError:
        return None
