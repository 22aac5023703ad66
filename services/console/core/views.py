"""Entities and balances as the API shows them: names for uids, never a secret or its hash."""

from typing import TypeVar

from services.console import api
from services.console.core import describe
from services.console.core.document import typed
from services.console.core.forecast import forecast_nano_usd
from services.console.core.paths import path_of
from shared.clock import rfc3339
from shared.contracts.budget import Balance
from shared.contracts.config import Customer, Entity, Key, Org, PriceOverride, Provider, ProviderConfig, Team
from shared.directory import Directory

V = TypeVar("V", bound=api.Managed)
EMPTY: dict[str, object] = {
    "budgets": [],
    "rate_limits": {},
    "tags": {},
    "session_budget_usd": None,
    "percent": None,
    "usd_per_million": None,
}


def customer(directory: Directory, entity: Customer, now: int) -> api.CustomerView:
    return _view(api.CustomerView, directory, entity, {})


def team(directory: Directory, entity: Team, now: int) -> api.TeamView:
    return _view(api.TeamView, directory, entity, {"customer": directory.name(entity.customer)})


def key(directory: Directory, entity: Key, now: int) -> api.KeyView:
    return _view(api.KeyView, directory, entity, _of_key(directory, entity, now))


def key_made(directory: Directory, entity: Key, now: int, secret: str) -> api.KeyMade:
    return _view(api.KeyMade, directory, entity, _of_key(directory, entity, now) | {"secret": secret})


def provider(directory: Directory, entity: Provider, now: int) -> api.ProviderView:
    return _view(api.ProviderView, directory, entity, {})


def price(directory: Directory, entity: PriceOverride, now: int) -> api.PriceView:
    return _view(api.PriceView, directory, entity, {})


def _view(kind: type[V], directory: Directory, entity: Entity, more: dict[str, object]) -> V:
    managed: dict[str, object] = {
        "uid": entity.uid,
        "org": directory.name("" if isinstance(entity, Org) else entity.org),
        "path": path_of(directory, entity),
        "managed_by": entity.managed_by,
        "revision": entity.revision,
    }
    return typed(kind, EMPTY | describe.tree(directory, entity) | managed | more)


def _of_key(directory: Directory, entity: Key, now: int) -> dict[str, object]:
    return {
        "customer": directory.name(entity.customer),
        "team": directory.name(entity.team),
        "secrets": [
            {
                "id": secret.id,
                "hint": secret.hint,
                "valid_from": rfc3339(secret.valid_from),
                "valid_until": rfc3339(secret.valid_until),
            }
            for secret in entity.secrets
        ],
        "state": _state(entity, now),
        "revoked": bool(entity.revoked_at),
        "revoked_at": rfc3339(entity.revoked_at),
    }


def _state(entity: Key, now: int) -> str:
    if entity.revoked_at:
        return "revoked"
    valid = any(s.valid_from <= now and (not s.valid_until or s.valid_until > now) for s in entity.secrets)
    return "active" if valid else "expired"


class Scopes:
    """Budgets' rules and the entities they hang on, for one directory; made once for a list of balances."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._rules = {rule.id: (org, rule) for org, _, _, rule in directory.all_rules()}
        self._configs: dict[str, tuple[Key, ProviderConfig]] = {
            part.uid: (entity, part)
            for entity in directory.entities.values()
            if isinstance(entity, Key)
            for part in entity.providers
        }

    def item(self, balance: Balance, now: int) -> api.BudgetItem:
        """A balance with the names and the rule it is measured by. Budgets deleted meanwhile keep their uid as name."""
        # `RULE:member:KEY` is one key's share of a `per: member` rule
        org, rule = self._rules.get(balance.budget_id.partition(":member:")[0], ("", None))
        path = self.path(balance.scope_uid)
        used = balance.spent_nano_usd + balance.held_nano_usd
        return api.BudgetItem(
            id=balance.budget_id,
            scope=balance.scope,
            scope_id=path.rpartition("/")[2],
            scope_uid=balance.scope_uid,
            path=path,
            org=self._directory.name(org),
            name=rule.name if rule else "",
            period=balance.period,
            period_id=balance.period_id,
            timezone=rule.timezone if rule else "UTC",
            mode=balance.mode,
            limit_nano_usd=balance.limit_nano_usd,
            spent_nano_usd=balance.spent_nano_usd,
            held_nano_usd=balance.held_nano_usd,
            remaining_nano_usd=max(0, balance.limit_nano_usd - used),
            utilization_ppm=_share_ppm(used, balance.limit_nano_usd),
            forecast_nano_usd=forecast_nano_usd(balance.spent_nano_usd, balance.period_id, balance.resets_at, now),
            alerts_ppm=rule.alerts_ppm if rule else (),
            resets_at=rfc3339(balance.resets_at) or None,
            blocked=balance.blocked,
            rolled_over_nano_usd=balance.rolled_over_nano_usd,
            granted_nano_usd=balance.granted_nano_usd,
        )

    def path(self, uid: str) -> str:
        """Of an entity, or of a key's provider config: `acme/platform/dev-asha/anthropic`."""
        if uid in self._configs:
            key, part = self._configs[uid]
            return f"{path_of(self._directory, key)}/{self._directory.name(part.provider)}"
        entity = self._directory.entities.get(uid)
        return path_of(self._directory, entity) if entity else uid


def _share_ppm(used: int, limit: int) -> int:
    if limit <= 0:
        return 1_000_000 if used > 0 else 0
    return used * 1_000_000 // limit
