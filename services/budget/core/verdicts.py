"""What is answered: how full the budgets are, which one refuses, when it begins anew and whom to ask."""

from collections.abc import Iterable

from services.budget.core.limits import Limit
from services.budget.core.periods import NEVER, Period
from services.budget.core.state import Counter, State
from shared.contracts.budget import Denied, Standing
from shared.contracts.message import Micros, NanoUSD

NEVER_RETRY_SECONDS = 86_400  # a budget without an end: tomorrow somebody may have raised it
BUSY_RETRY_SECONDS = 5  # at most; spread over clients, so that they do not come back all at once
_PPM = 1_000_000


def standings(booked: Iterable[tuple[Limit, Period, Counter, NanoUSD]]) -> tuple[Standing, ...]:
    """The fullest first. Shadow budgets are tried out unseen by clients."""
    found = [standing(*stands) for stands in booked if stands[0].rule.mode != "shadow"]
    return tuple(sorted(found, key=lambda s: -s.utilization_ppm))


def standing(limit: Limit, period: Period, counter: Counter, allowed: NanoUSD) -> Standing:
    """What is held is left out: it may take all that is left, and a person would be told so at every step."""
    used = ppm(counter.spent(limit.basis), allowed)
    return Standing(
        budget_id=limit.id,
        period=limit.rule.period,
        utilization_ppm=used,
        surpassed_ppm=max([alert for alert in limit.rule.alerts_ppm if alert <= used], default=0) if used else 0,
        resets_at=resets_at(period),
    )


def ppm(amount: NanoUSD, limit: NanoUSD) -> int:
    """Share of the limit in parts per million; a limit of nothing is full."""
    return amount * _PPM // limit if limit > 0 else _PPM


def resets_at(period: Period) -> Micros:
    return 0 if period.end == NEVER else period.end


def no_budget(state: State, reason: str) -> Denied:
    """A refusal that no budget is the cause of."""
    return Denied(
        budget_id="",
        reason=reason,
        limit_nano_usd=0,
        spent_nano_usd=0,
        held_nano_usd=0,
        need_nano_usd=0,
        input_bound=0,
        resets_at=0,
        retry_after_s=0,
        contact="",
        owner_epoch=state.owner_epoch,
    )


def spent_refusal(state: State, limit: Limit, now: Micros, contact: str = "") -> Denied:
    """What a request is told at a spent budget; also what the edges keep to refuse by themselves."""
    period, counter = limit.now(state, now)
    allowance = limit.allowance(state, period, now)
    return Denied(
        budget_id=limit.id,
        reason="spent",
        limit_nano_usd=allowance.nano_usd,
        spent_nano_usd=counter.spent(limit.basis),
        held_nano_usd=counter.held_nano_usd + allowance.tied,
        need_nano_usd=0,
        input_bound=0,
        resets_at=resets_at(period),
        retry_after_s=retry_after_s(period, now),
        contact=limit.rule.contact or contact,
        owner_epoch=state.owner_epoch,
        at_cap=limit.rule.at_cap,
    )


def retry_after_s(period: Period, now: Micros) -> int:
    """Seconds until the period ends, rounded up."""
    return NEVER_RETRY_SECONDS if period.end == NEVER else -(-(period.end - now) // 1_000_000)


def spread(rid: str) -> int:
    """1 to BUSY_RETRY_SECONDS; the end of a ULID is random."""
    return 1 + ord(rid[-1:] or "0") % BUSY_RETRY_SECONDS
