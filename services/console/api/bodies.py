"""What is sent to the admin API; unknown fields are errors."""

from typing import Annotated, Literal

import msgspec

from shared.contracts import organisation
from shared.contracts.organisation import Budget, RateLimits, Slug, Strict, Usd

Reference = Annotated[str, msgspec.Meta(description="uid, slug, or slug path like acme/platform")]


class CustomerBody(Strict, frozen=True, kw_only=True):
    """A customer, without its teams."""

    id: Slug
    org: Reference = "default"
    contact: str = ""
    budgets: tuple[Budget, ...] = ()
    rate_limits: RateLimits = RateLimits()
    tags: dict[str, str] = {}


class TeamBody(Strict, frozen=True, kw_only=True):
    """A team, without its keys."""

    id: Slug
    customer: Reference
    contact: str = ""
    budgets: tuple[Budget, ...] = ()
    rate_limits: RateLimits = RateLimits()
    tags: dict[str, str] = {}


class KeyBody(organisation.Key, frozen=True, kw_only=True):
    """A virtual key of a team."""

    team: Reference


class ProviderBody(organisation.Provider, frozen=True, kw_only=True):
    """A provider of an organisation."""

    org: Reference = "default"


class PriceBody(organisation.Price, frozen=True, kw_only=True):
    """A negotiated price of an organisation."""

    org: Reference = "default"


class BudgetPatch(Strict, frozen=True, kw_only=True):
    """What can change in a budget that keeps its counters. Another period, zone or anchor is another budget."""

    limit_usd: Usd | None = None
    limit_nano_usd: Annotated[int, msgspec.Meta(ge=0)] | None = None
    mode: Literal["hard", "soft", "shadow"] | None = None
    alerts: tuple[float, ...] | None = None
    rollover_cap_usd: Usd | None = None
    hold: Literal["adaptive", "bound", "expected"] | None = None
    at_cap: Literal["cut", "finish"] | None = None
    queue_seconds: int | None = None


class GrantBody(Strict, frozen=True, kw_only=True):
    """Money on top of a limit. expires_at: RFC 3339 or a date (its start in UTC); empty, it lasts as long as its period."""

    amount_usd: Usd
    expires_at: str = ""
    note: str = ""


class OrgPatch(Strict, frozen=True, kw_only=True):
    """The shard of the ledger that the organisation moves to."""

    shard: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9]{1,16}$")]


class RotateBody(Strict, frozen=True, kw_only=True):
    """How long the secrets so far go on working."""

    overlap_seconds: Annotated[int, msgspec.Meta(ge=0, le=90 * 86_400)] = 0


class SessionBody(Strict, frozen=True, kw_only=True):
    """Sign in to the page."""

    token: str
