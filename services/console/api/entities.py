"""Entities as the admin API shows them: their part of the document and what we keep beside it; dollars are decimal."""

import msgspec

from services.console.api.answers import Answer, InForce, Instant
from shared.contracts import organisation
from shared.contracts.organisation import Budget, Credential, ProviderConfig, RateLimits, Usd


class Managed(Answer, frozen=True, kw_only=True):
    """What every entity has beside its document. revision: for If-Match. in_force: after a change with `wait`."""

    uid: str
    org: str
    path: str
    managed_by: str
    revision: int
    in_force: InForce | msgspec.UnsetType = msgspec.UNSET


class CustomerView(Managed, frozen=True, kw_only=True):
    """A customer."""

    id: str
    contact: str
    budgets: tuple[Budget, ...]
    rate_limits: RateLimits
    tags: dict[str, str]


class TeamView(Managed, frozen=True, kw_only=True):
    """A team."""

    id: str
    customer: str
    contact: str
    budgets: tuple[Budget, ...]
    rate_limits: RateLimits
    tags: dict[str, str]


class SecretView(Answer, frozen=True, kw_only=True):
    """One secret of a key, without the secret."""

    id: str
    hint: str
    valid_from: Instant
    valid_until: Instant


class KeyView(Managed, frozen=True, kw_only=True):
    """A virtual key. state: active, revoked, or expired when none of its secrets is valid now."""

    id: str
    customer: str
    team: str
    owner: str
    contact: str
    budgets: tuple[Budget, ...]
    session_budget_usd: Usd | None
    rate_limits: RateLimits
    models: tuple[str, ...]
    providers: tuple[ProviderConfig, ...]
    tags: dict[str, str]
    secrets: tuple[SecretView, ...]
    state: str
    revoked: bool
    revoked_at: Instant


class KeyMade(KeyView, frozen=True, kw_only=True):
    """A key with a secret, told this once."""

    secret: str


class ProviderView(Managed, frozen=True, kw_only=True):
    """A provider. Credentials are references; the secrets are never here."""

    name: str
    kind: str
    base_url: str
    credentials: tuple[Credential, ...]
    models: tuple[str, ...]
    unpriced: str
    region: str


class PriceView(Managed, frozen=True, kw_only=True):
    """A negotiated price."""

    models: tuple[str, ...]
    scope: str
    provider: str
    percent: float | int | str | None
    usd_per_million: organisation.UsdPerMillion | None
    acts_on: str
    from_: str = msgspec.field(name="from")
    until: str


class Customers(Answer, frozen=True, kw_only=True):
    """One page; next_cursor is empty on the last."""

    items: tuple[CustomerView, ...]
    next_cursor: str


class Teams(Answer, frozen=True, kw_only=True):
    """One page; next_cursor is empty on the last."""

    items: tuple[TeamView, ...]
    next_cursor: str


class Keys(Answer, frozen=True, kw_only=True):
    """One page; next_cursor is empty on the last."""

    items: tuple[KeyView, ...]
    next_cursor: str


class Providers(Answer, frozen=True, kw_only=True):
    """One page; next_cursor is empty on the last."""

    items: tuple[ProviderView, ...]
    next_cursor: str


class Prices(Answer, frozen=True, kw_only=True):
    """One page; next_cursor is empty on the last."""

    items: tuple[PriceView, ...]
    next_cursor: str
