"""The way back: from the directory to the document people write. Secrets never come with it."""

from services.console.core import prices
from services.console.core.document import typed
from services.console.core.money import usd_of
from services.console.core.rules import default_at_cap
from shared.contracts import organisation
from shared.contracts.budget import DEFAULT_SHARD
from shared.contracts.config import (
    BudgetRule,
    Credential,
    Customer,
    Entity,
    Grant,
    Key,
    ModelRateLimits,
    Org,
    PriceOverride,
    Provider,
    ProviderConfig,
    RateLimits,
    Team,
)
from shared.directory import Directory

Tree = dict[str, object]
DEFAULT_ALERTS_PPM = (500_000, 800_000, 950_000)


def document(directory: Directory, org: Org) -> organisation.Organisation:
    """The whole organisation; applying it again changes nothing."""
    mine = [e for e in directory.entities.values() if not isinstance(e, Org) and e.org == org.uid]
    keys: dict[str, list[Tree]] = {}
    teams: dict[str, list[Tree]] = {}
    for entity in sorted((e for e in mine if isinstance(e, Key)), key=lambda e: e.id):
        keys.setdefault(entity.team, []).append(tree(directory, entity))
    for part in sorted((e for e in mine if isinstance(e, Team)), key=lambda e: e.id):
        teams.setdefault(part.customer, []).append(tree(directory, part) | {"keys": keys.get(part.uid, [])})
    customers = [
        tree(directory, e) | {"teams": teams.get(e.uid, [])}
        for e in sorted((e for e in mine if isinstance(e, Customer)), key=lambda e: e.id)
    ]
    whole: Tree = {
        "org": {"id": org.id, "budgets": _budgets(org.budgets), "shard": _shard(org)} | _limits(org.rate_limits),
        "contact": org.contact,
        "providers": [tree(directory, e) for e in mine if isinstance(e, Provider)],
        "prices": [tree(directory, e) for e in mine if isinstance(e, PriceOverride)],
        "customers": customers,
    }
    return typed(organisation.Organisation, whole)


def _shard(org: Org) -> str:
    return "" if org.shard == DEFAULT_SHARD else org.shard


def tree(directory: Directory, entity: Entity) -> Tree:
    """One entity without its children, as plain values of its part of the document."""
    assert not isinstance(entity, Grant), "no document holds a grant"
    if isinstance(entity, PriceOverride):
        return prices.tree(directory, entity)
    if isinstance(entity, Provider):
        return _provider(entity)
    found: Tree = {
        "id": entity.id,
        "contact": entity.contact,
        "budgets": _budgets(entity.budgets),
    } | _limits(entity.rate_limits)
    if not isinstance(entity, Org):
        found["tags"] = dict(entity.tags)
    if isinstance(entity, Key):
        found |= {
            "owner": entity.owner,
            "models": list(entity.models),
            "providers": [_provider_config(directory, part) for part in entity.providers],
        }
        if entity.session_budget_nano_usd:
            found["session_budget_usd"] = usd_of(entity.session_budget_nano_usd)
    return found


def _provider(entity: Provider) -> Tree:
    return {
        "name": entity.name,
        "kind": entity.kind,
        "base_url": entity.base_url,
        "credentials": [_credential(part) for part in entity.credentials],
        "models": list(entity.models),
        "unpriced": entity.unpriced,
        "region": entity.region,
    }


def _credential(part: Credential) -> Tree:
    return {"id": part.id, "ref": part.ref, "weight": part.weight, "region": part.region}


def _provider_config(directory: Directory, part: ProviderConfig) -> Tree:
    return {
        "name": directory.name(part.provider),
        "budgets": _budgets(part.budgets),
        "models": list(part.models),
    }


def _limits(limits: RateLimits) -> Tree:
    """Left out where nothing is limited: what people wrote reads best as they wrote it."""
    given = _numbers(limits)
    if limits.models:
        given["models"] = {pattern: _numbers(found) for pattern, found in limits.models.items()}
    return {"rate_limits": given} if given else {}


def _numbers(limits: ModelRateLimits) -> Tree:
    return {name: found for name in ModelRateLimits.__struct_fields__ if (found := getattr(limits, name))}


def _budgets(rules: tuple[BudgetRule, ...]) -> list[Tree]:
    return [budget_tree(rule) for rule in rules]


def budget_tree(rule: BudgetRule) -> Tree:
    """One rule as plain values of an organisation.Budget."""
    found: Tree = {
        "limit_usd": usd_of(rule.limit_nano_usd),
        "period": rule.period,
        "name": rule.name,
        "timezone": rule.timezone,
        "anchor": rule.anchor or "calendar",
        "rollover_cap_usd": usd_of(rule.rollover_cap_nano_usd),
        "mode": rule.mode,
        "basis": rule.basis,
        "hold": rule.hold,
        "at_cap": None if rule.at_cap == default_at_cap(rule.mode) else rule.at_cap,
        "queue_seconds": rule.queue_seconds,
        "per": rule.per,
        "match": dict(rule.match),
    }
    if rule.alerts_ppm != DEFAULT_ALERTS_PPM:
        found["alerts"] = [ppm / 1_000_000 for ppm in rule.alerts_ppm]
    return found
