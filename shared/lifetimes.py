"""How long each entity and each budget has been there, and what a budget's limit was before: read off CONFIG's change sets.

Kept here and not in the rule, so that it is there for rules of every age and no file or editor can get it wrong.
"""

import msgspec

from shared.contracts.config import BudgetRule, Customer, Entity, Key, Org, Team
from shared.contracts.message import Micros, NanoUSD, Uid

MOST_LIMITS = 64  # of one budget; beyond them the oldest one stands for all before it


class Lifetime(msgspec.Struct, frozen=True, gc=False):
    """Of one budget. since: when it began to count. limits: (from when, limit), oldest first, the last one is in force."""

    since: Micros = 0
    limits: tuple[tuple[Micros, NanoUSD], ...] = ()


class Lifetimes:
    """Folded beside the entities by Directory."""

    def __init__(self) -> None:
        self.made_at: dict[Uid, Micros] = {}
        self._budgets: dict[str, Lifetime] = {}

    def of_budget(self, rule_id: str) -> Lifetime:
        return self._budgets.get(rule_id, Lifetime())

    def put(self, before: Entity | None, entity: Entity, at: Micros) -> None:
        """Before it takes the place of what was there."""
        self.made_at.setdefault(entity.uid, at)
        old = {rule.id: rule for rule in rules_of(before)}
        for rule in rules_of(entity):
            self._put(old.pop(rule.id, None), rule, at)
        for gone in old:
            self._budgets.pop(gone, None)

    def _put(self, old: BudgetRule | None, rule: BudgetRule, at: Micros) -> None:
        """Another calendar is another count; another limit is not."""
        if old is None or calendar_of(old) != calendar_of(rule):
            self._budgets[rule.id] = Lifetime(at, ((at, rule.limit_nano_usd),))
        elif old.limit_nano_usd != rule.limit_nano_usd:
            known = self.of_budget(rule.id)
            at = max(
                at, *(dated for dated, _ in known.limits[-1:]), 0
            )  # a clock that was set back must not unsort them
            self._budgets[rule.id] = Lifetime(known.since, (*known.limits, (at, rule.limit_nano_usd))[-MOST_LIMITS:])

    def remove(self, entity: Entity) -> None:
        self.made_at.pop(entity.uid, None)
        for rule in rules_of(entity):
            self._budgets.pop(rule.id, None)


def calendar_of(rule: BudgetRule) -> tuple[str, str, str]:
    """What a budget's periods depend on."""
    return rule.period, rule.timezone, rule.anchor


def rules_of(entity: Entity | None) -> tuple[BudgetRule, ...]:
    """Every budget of one entity; a key's provider configs included."""
    if not isinstance(entity, Org | Customer | Team | Key):
        return ()
    inner = (rule for part in entity.providers for rule in part.budgets) if isinstance(entity, Key) else ()
    return (*entity.budgets, *inner)
