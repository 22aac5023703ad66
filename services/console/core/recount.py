"""Which budgets of a changed entity begin to count anew. People hardly ever mean to, so a dry run tells."""

from shared.contracts.config import BudgetRule, Entity
from shared.lifetimes import calendar_of, rules_of


def warnings(before: Entity | None, after: Entity) -> tuple[str, ...]:
    """One sentence for each. Another limit or mode keeps the count."""
    old, new = ({rule.id: rule for rule in rules_of(entity)} for entity in (before, after))
    moved = [rule for rule_id, rule in new.items() if rule_id in old and calendar_of(rule) != calendar_of(old[rule_id])]
    begun = [rule for rule_id, rule in new.items() if rule_id not in old]
    gone = [rule for rule_id, rule in old.items() if rule_id not in new]
    told = [f"{_name(rule)} counts anew from nothing: another {_difference(old[rule.id], rule)}" for rule in moved]
    # by its id it is a new budget; by its place in the file, the other one with another period or name
    told += [
        f"{_name(rule)} counts anew from nothing: {' and '.join(map(_name, others))} ends"
        for rule in begun
        if (others := [other for other in gone if _scope(other) == _scope(rule)])
    ]
    return tuple(told)


def _scope(rule: BudgetRule) -> str:
    return ":".join(rule.id.split(":")[:2])


def _name(rule: BudgetRule) -> str:
    return f"the budget of a {rule.period}" + (f" `{rule.name}`" if rule.name else "")


def _difference(old: BudgetRule, new: BudgetRule) -> str:
    fields = [name for name in ("timezone", "anchor") if getattr(old, name) != getattr(new, name)]
    return " and ".join(fields)
