"""What one budget may spend in one period: its limit, what rolled over into it, and what was granted on top.

The limit is used first, then what rolled over, then grants, and of those first the one that ends first. So nothing of a
grant ever rolls over, and no grant, made or taken back, changes another period.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from services.budget.core.periods import NEVER, Calendar, Period
from services.budget.core.state import State
from shared.contracts.config import BudgetRule, Grant
from shared.contracts.ledger import Lapsed
from shared.contracts.message import Micros, NanoUSD
from shared.lifetimes import Lifetime

MOST_PERIODS = 1_000  # that are looked back on, six weeks of hours: a cap that is never reached must not slow the shard
_MOST: NanoUSD = (1 << 63) - 1  # what a message can carry


class Allowance(NamedTuple):
    """nano_usd: in all. tied: of what rolled over, what calls of the periods before may still take; not free, not spent."""

    nano_usd: NanoUSD
    rolled_over: NanoUSD = 0
    granted: NanoUSD = 0
    tied: NanoUSD = 0


class Allowances:
    """Of one budget whose limit is not all there is. grants: of this budget alone.

    Unused is what a period's limit and what rolled over into it leave of its spend and holds, at most the cap. The limit
    of a past period is the one that was in force at its end. No chain begins before `lifetime.since`.
    """

    def __init__(
        self, rule: BudgetRule, basis: str, calendar: Calendar, lifetime: Lifetime, grants: Sequence[Grant]
    ) -> None:
        self._id = rule.id
        self._limit = rule.limit_nano_usd
        self._cap = rule.rollover_cap_nano_usd if rule.period != "total" else 0
        self._basis = basis
        self._calendar = calendar
        self._lifetime = lifetime
        self._grants = sorted(grants, key=lambda grant: (_end(grant), grant.granted_at, grant.uid))

    def at(self, state: State, period: Period, now: Micros) -> Allowance:
        """In this period, as things stand now."""
        rolled_over, tied = self._rolled_over(state, period) if self._cap else (0, 0)
        granted = sum(grant.nano_usd for grant in self._of(period) if now < _end(grant))
        granted += sum(used for _, used in self._ended(state, period, rolled_over, now))
        total = min(_MOST, self._limit + rolled_over + granted)
        return Allowance(total, rolled_over, granted, tied)

    def room(self, state: State, period: Period, now: Micros) -> tuple[NanoUSD, NanoUSD]:
        """What is left and what is free for a hold of this period. In a past one it must not take what it has handed on."""
        periods = [period]
        while self._cap and periods[-1].end <= now:
            periods.append(self._calendar.at(periods[-1].end))
        return self._room(state, periods, now, held=False), self._room(state, periods, now, held=True)

    def _room(self, state: State, periods: Sequence[Period], now: Micros, *, held: bool) -> NanoUSD:
        """Of the first period, the last being the present one. held: with all holds, else with none of any period."""
        *past, present = periods
        room = self._left(state, present, now, held=held)
        for period in reversed(past):
            unused = self._unused(state, period, held=held)
            # beyond what the cap let go to waste, each dollar more here is a dollar less there
            most = max(0, unused - self._cap) + max(0, room)
            handed_on = min(self._cap, max(0, unused))
            left = self._left(state, period, now, held=held)
            room = left if room >= handed_on else min(left, most)
        return room

    def lapses(self, state: State, now: Micros) -> Iterator[Lapsed]:
        """Grants that have ended and are not known to have; of past periods too, where streams may still ask for more."""
        unknown = [grant for grant in self._grants if _end(grant) <= now and grant.uid not in state.lapsed]
        for period in dict.fromkeys(self._calendar.at(grant.granted_at) for grant in unknown):
            rolled_over, _ = self._rolled_over(state, period) if self._cap else (0, 0)
            for grant, used in list(self._ended(state, period, rolled_over, now)):
                if grant.uid not in state.lapsed:
                    yield Lapsed(grant=grant.uid, budget_id=self._id, period_id=period.id, used_nano_usd=used, at=now)

    def turns(self) -> Iterator[Micros]:
        """When grants stop to count, so that time alone may make this budget a spent one."""
        for grant in self._grants:
            ends = {_end(grant), self._calendar.at(grant.granted_at).end}
            yield from (at for at in ends if at != NEVER)

    def _ended(
        self, state: State, period: Period, rolled_over: NanoUSD, now: Micros
    ) -> Iterator[tuple[Grant, NanoUSD]]:
        """Grants of this period that have ended, and what was used of each: as recorded, else as it stands."""
        ended = [grant for grant in self._of(period) if _end(grant) <= now]
        counter = state.counter(self._id, period.id)
        in_flight = counter.held_nano_usd - counter.lent_nano_usd  # what is lent is nobody's yet, and comes back
        over = counter.spent(self._basis) + in_flight - self._limit - rolled_over
        over -= sum(state.lapsed.get(grant.uid, 0) for grant in ended)
        for grant in ended:
            used = state.lapsed.get(grant.uid)
            if used is None:
                used = max(0, min(grant.nano_usd, over))
                over -= used
            yield grant, used

    def _left(self, state: State, period: Period, now: Micros, *, held: bool) -> NanoUSD:
        counter, allowance = state.counter(self._id, period.id), self.at(state, period, now)
        left = allowance.nano_usd - counter.spent(self._basis)
        return left - allowance.tied - counter.held_nano_usd if held else left

    def _unused(self, state: State, period: Period, *, held: bool) -> NanoUSD:
        counter = state.counter(self._id, period.id)
        rolled_over, tied = self._rolled_over(state, period)
        unused = self._limit_in(period) + rolled_over - counter.spent(self._basis)
        return unused - tied - counter.held_nano_usd if held else unused

    def _rolled_over(self, state: State, period: Period) -> tuple[NanoUSD, NanoUSD]:
        """From all periods before it; and how much of that holds still in flight there may take."""
        spent, used = _Carry(self._cap), _Carry(self._cap)
        for earlier in self._before(period):
            counter = state.counter(self._id, earlier.id)
            left = self._limit_in(earlier) - counter.spent(self._basis)
            spent.prepend(left)
            used.prepend(left - counter.held_nano_usd)
            if spent.least == spent.most and used.least == used.most:
                break
        return spent.least, spent.least - used.least

    def _before(self, period: Period) -> Iterator[Period]:
        """The newest first, as far as the budget was there in them."""
        for _ in range(MOST_PERIODS):
            if period.start <= self._lifetime.since:
                return
            period = self._calendar.before(period)
            yield period

    def _limit_in(self, period: Period) -> NanoUSD:
        """At its end."""
        limits = self._lifetime.limits
        if len(limits) < 2:
            return self._limit
        return limits[max(0, bisect_right(limits, period.end - 1, key=lambda dated: dated[0]) - 1)][1]

    def _of(self, period: Period) -> Iterator[Grant]:
        return (grant for grant in self._grants if period.start <= grant.granted_at < period.end)


class _Carry:
    """What arrives from a row of periods, for any x that arrived at the oldest of them: min(most, max(least, x + shift))."""

    __slots__ = ("_cap", "_shift", "least", "most")

    def __init__(self, cap: NanoUSD) -> None:
        self._cap = cap
        self._shift: NanoUSD = 0
        self.least: NanoUSD = 0
        self.most = cap

    def prepend(self, left: NanoUSD) -> None:
        """Put an older period before them, which leaves this much of its own limit (signed)."""
        self._shift += left
        least, most = self.least, self.most
        self.least = min(most, max(least, self._shift))
        self.most = min(most, max(least, self._cap + self._shift))


class Agenda:
    """When time alone changes what budgets may spend, so that nobody has to look at all of them again and again."""

    def __init__(self, turns: Iterable[tuple[Micros, str]]) -> None:
        """turns: (when, budget id)."""
        self._turns = sorted(turns)

    def between(self, after: Micros, until: Micros) -> list[str]:
        """Budgets that changed after the one instant and not after the other; each once, in order of their turns."""
        first = bisect_right(self._turns, after, key=lambda turn: turn[0])
        last = bisect_right(self._turns, until, key=lambda turn: turn[0])
        return list(dict.fromkeys(budget_id for _, budget_id in self._turns[first:last]))


def _end(grant: Grant) -> Micros:
    return grant.expires_at or NEVER
