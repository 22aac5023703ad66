"""Which scopes are blocked at every edge, so that a spent budget refuses without asking, and at once everywhere."""

from collections.abc import Iterable, Iterator

import msgspec

from services.budget.core.admission import Rules
from services.budget.core.limits import Limit
from services.budget.core.state import State
from services.budget.core.verdicts import ppm, resets_at, spent_refusal
from shared.contracts.budget import Balance, Changed, Decision
from shared.contracts.ledger import Decided, Lapsed
from shared.contracts.message import Micros


def due(state: State, rules: Rules, scopes: Iterable[str], now: Micros) -> Iterator[Decided]:
    """Blocks to set and to lift among these scopes. Apply each before asking for the next: versions rise by one.

    A scope is blocked by the spent hard budget that lasts longest; when another takes its place, it is decided anew.
    """
    for scope in scopes:
        spent = [limit for limit in rules.catalogue.by_scope.get(scope, ()) if limit.spent(state, now)]
        by = max(spent, key=lambda limit: limit.calendar.at(now).end).id if spent else ""
        before = state.decisions.get(scope)
        blocked_by = before.budget_id if before and before.state == "block" else ""
        if by != blocked_by:
            yield Decided(
                scope=scope,
                state="block" if by else "unblock",
                version=state.version + 1,
                budget_id=by or blocked_by,
                at=now,
            )


def lapses(state: State, limits: Iterable[Limit], now: Micros) -> Iterator[Lapsed]:
    """Grants of these budgets that have ended and are not known to have; to be applied before anything else is decided."""
    for limit in limits:
        if limit.allowances:
            yield from list(limit.allowances.lapses(state, now))


def blocked(state: State) -> list[str]:
    """Scopes that are blocked now."""
    return [scope for scope, decided in state.decisions.items() if decided.state == "block"]


def decision(state: State, rules: Rules, decided: Decided, now: Micros) -> Decision:
    """What the edges are told; until: the end of the period, when it lapses by itself."""
    message = Decision(
        scope=decided.scope,
        state=decided.state,
        version=decided.version,
        owner_epoch=state.owner_epoch,
        move=rules.catalogue.move_of(decided.scope),
    )
    limit = rules.catalogue.limit(decided.budget_id)
    if decided.state != "block" or limit is None:
        return message
    denied = spent_refusal(state, limit, now, rules.catalogue.contact(limit))
    return msgspec.structs.replace(message, until=denied.resets_at, denied=denied)


def balance(state: State, limit: Limit, now: Micros) -> Balance:
    """One budget as it stands."""
    period, counter = limit.now(state, now)
    allowance = limit.allowance(state, period, now)
    decided = state.decisions.get(limit.block_scope)
    return Balance(
        budget_id=limit.id,
        scope=limit.scope,
        scope_uid=limit.scope_uid,
        period=limit.rule.period,
        period_id=period.id,
        mode=limit.rule.mode,
        limit_nano_usd=allowance.nano_usd,
        spent_nano_usd=counter.spent(limit.basis),
        held_nano_usd=counter.held_nano_usd + allowance.tied,
        resets_at=resets_at(period),
        blocked=bool(decided and decided.state == "block" and decided.budget_id == limit.id),
        rolled_over_nano_usd=allowance.rolled_over,
        granted_nano_usd=allowance.granted,
    )


class Alerts:
    """Which threshold of each budget was announced last. Not in the ledger: announced again after a restart, it harms not."""

    def __init__(self) -> None:
        self._announced: dict[str, tuple[str, int]] = {}

    def crossed(self, state: State, limit: Limit, now: Micros) -> Changed | None:
        """The announcement when spend has passed another threshold of its period; upwards only."""
        period, counter = limit.now(state, now)
        used = ppm(counter.spent(limit.basis), limit.allowance(state, period, now).nano_usd)
        reached = max((alert for alert in limit.rule.alerts_ppm if alert <= used), default=0)
        period_id, before = self._announced.get(limit.id, ("", 0))
        if period_id != period.id:
            before = 0
        self._announced[limit.id] = (period.id, reached)
        if reached <= before:
            return None
        return Changed(balance=balance(state, limit, now), threshold_ppm=reached, at=now)
