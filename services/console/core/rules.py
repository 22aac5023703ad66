"""Budgets, limits and patterns of a document, checked and put into the form of the bus."""

import zoneinfo
from collections.abc import Callable
from datetime import date
from functools import cache

from services.console.core.money import fraction_ppm, nano_usd
from services.console.core.problem import Invalid
from shared.contracts import config, organisation

MATCHES = ("model", "provider", "credential", "operation", "tag")
"""What a budget can be narrowed to: shell patterns; a tag as NAME=PATTERN."""

ProviderUid = Callable[[str, str], str]
"""(name, where) -> uid of a provider; raises Invalid when there is none of that name."""


def budget_rules(
    budgets: tuple[organisation.Budget, ...], scope: str, scope_uid: str, where: str, provider_uid: ProviderUid
) -> tuple[config.BudgetRule, ...]:
    """where: path of the list, for errors. Two budgets of one scope need different periods or names."""
    rules: dict[str, config.BudgetRule] = {}
    for index, budget in enumerate(budgets):
        at = f"{where}[{index}]"
        rule = _rule(budget, scope, scope_uid, at, provider_uid)
        if rule.id in rules:
            raise Invalid(at, f"a second budget per {budget.period} here needs a `name` of its own")
        rules[rule.id] = rule
    return tuple(rules.values())


def _rule(
    budget: organisation.Budget, scope: str, scope_uid: str, at: str, provider_uid: ProviderUid
) -> config.BudgetRule:
    if budget.per and scope in ("key", "provider_config"):
        raise Invalid(f"{at}.per", "`member` makes a cap for each key: it belongs on a team, a customer or the org")
    rollover_cap = nano_usd(budget.rollover_cap_usd, f"{at}.rollover_cap_usd")
    if rollover_cap and budget.period == "total":
        raise Invalid(f"{at}.rollover_cap_usd", "a total never ends, so nothing can roll over")
    return config.BudgetRule(
        id=":".join(filter(None, (scope, scope_uid, budget.period, budget.name))),
        limit_nano_usd=nano_usd(budget.limit_usd, f"{at}.limit_usd"),
        period=budget.period,
        name=budget.name,
        timezone=_timezone(budget.timezone, f"{at}.timezone"),
        anchor=_anchor(budget.anchor, f"{at}.anchor"),
        rollover_cap_nano_usd=rollover_cap,
        mode=budget.mode,
        basis=budget.basis,
        alerts_ppm=tuple(sorted({fraction_ppm(alert) for alert in budget.alerts})),
        hold=budget.hold,
        at_cap=budget.at_cap or default_at_cap(budget.mode),
        queue_seconds=budget.queue_seconds,
        per=budget.per,
        match=_match(budget.match, f"{at}.match", provider_uid),
    )


def default_at_cap(mode: str) -> str:
    return "cut" if mode == "hard" else "finish"


@cache
def _zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def _timezone(name: str, at: str) -> str:
    if name not in _zones():
        raise Invalid(at, f"`{name}` is not an IANA time zone")
    return name


def _anchor(anchor: str, at: str) -> str:
    """ "" for the calendar, else the ISO date that periods count from."""
    if anchor == "calendar":
        return ""
    try:
        return date.fromisoformat(anchor).isoformat()
    except ValueError:
        raise Invalid(at, f"`{anchor}` is neither `calendar` nor a date like 2026-04-01") from None


def _match(match: dict[str, str], at: str, provider_uid: ProviderUid) -> dict[str, str]:
    for name, pattern in match.items():
        if name not in MATCHES:
            raise Invalid(f"{at}.{name}", f"a budget can match {', '.join(MATCHES)}", "unknown_field")
        if name == "provider" and not set(pattern) & set("*?["):
            provider_uid(pattern, f"{at}.provider")  # a misspelt name would make a budget that never applies
    return match


def rate_limits(limits: organisation.RateLimits, where: str) -> config.RateLimits:
    """Patterns that limit nothing are left out."""
    patterns(tuple(limits.models), f"{where}.models")
    models = {pattern: config.ModelRateLimits(**_numbers(found)) for pattern, found in limits.models.items()}
    given = {pattern: found for pattern, found in models.items() if found != config.ModelRateLimits()}
    return config.RateLimits(**_numbers(limits), models=given)


def _numbers(limits: organisation.ModelRateLimits) -> dict[str, int]:
    return {name: getattr(limits, name) for name in organisation.ModelRateLimits.__struct_fields__}


def patterns(models: tuple[str, ...], where: str) -> tuple[str, ...]:
    """Shell patterns over model names."""
    for index, pattern in enumerate(models):
        if not 0 < len(pattern) <= 200 or not pattern.isprintable() or " " in pattern:
            raise Invalid(f"{where}[{index}]", f"`{pattern[:40]}` is not a pattern of model names")
    return models
