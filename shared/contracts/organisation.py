"""The organisation as people write it: what `sluicegate apply` takes and the admin API exchanges entity by entity.

Unknown fields are errors that name the field: a misspelt budget must never mean "unlimited".
Amounts are decimal US dollars; identifiers are slugs. It never holds runtime counters.
"""

from typing import Annotated, Literal

import msgspec

Slug = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,126}$", description="unique among siblings")]
Usd = Annotated[
    float | int | str, msgspec.Meta(description="US dollars, at most 9 decimals; a string keeps them exact")
]
Period = Literal["hour", "day", "week", "month", "quarter", "year", "total"]
NonNegative = Annotated[int, msgspec.Meta(ge=0)]


class Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Every part of the document refuses fields it does not know."""


class Budget(Strict, frozen=True, kw_only=True):
    """A limit on the sum over everything below it. All budgets on a request's path must agree."""

    limit_usd: Usd
    period: Period
    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{0,64}$")] = ""
    timezone: str = "UTC"
    anchor: Literal["calendar"] | str = "calendar"
    rollover_cap_usd: Usd = 0
    mode: Literal["hard", "soft", "shadow"] = "hard"
    basis: Literal["list", "cost", "charge"] = "cost"
    alerts: tuple[Annotated[float, msgspec.Meta(gt=0, le=10)], ...] = (0.5, 0.8, 0.95)
    hold: Literal["adaptive", "bound", "expected"] = "adaptive"
    at_cap: Literal["cut", "finish"] | None = None
    queue_seconds: Annotated[int, msgspec.Meta(ge=0, le=600)] = 20
    per: Literal["", "member"] = ""
    match: dict[str, str] = {}


class ModelRateLimits(Strict, frozen=True, kw_only=True):
    """0: no limit. Requests are those of clients, whatever attempts they take; tokens of all classes, cache reads too."""

    requests_per_minute: NonNegative = 0
    requests_per_hour: NonNegative = 0
    requests_per_day: NonNegative = 0
    tokens_per_minute: NonNegative = 0
    tokens_per_hour: NonNegative = 0
    tokens_per_day: NonNegative = 0
    concurrent_requests: NonNegative = 0


class RateLimits(ModelRateLimits, frozen=True, kw_only=True):
    """On everything below a scope. `models`: more of them for the models that a shell pattern fits; all that fit count."""

    models: dict[str, ModelRateLimits] = {}


class ProviderConfig(Strict, frozen=True, kw_only=True):
    """What one key may do with one provider, by the provider's name."""

    name: Slug
    budgets: tuple[Budget, ...] = ()
    models: tuple[str, ...] = ()


class Key(Strict, frozen=True, kw_only=True):
    """A virtual key. `secret` fixes the secret for tests and migrations; left out, one is made and shown once."""

    id: Slug
    owner: str = ""
    contact: str = ""
    budgets: tuple[Budget, ...] = ()
    session_budget_usd: Usd | None = None
    rate_limits: RateLimits = RateLimits()
    models: tuple[str, ...] = ()
    providers: tuple[ProviderConfig, ...] = ()
    tags: dict[str, str] = {}
    secret: Annotated[str, msgspec.Meta(min_length=8, max_length=256)] | None = None


class Team(Strict, frozen=True, kw_only=True):
    """A team and its keys."""

    id: Slug
    contact: str = ""
    budgets: tuple[Budget, ...] = ()
    rate_limits: RateLimits = RateLimits()
    tags: dict[str, str] = {}
    keys: tuple[Key, ...] = ()


class Customer(Strict, frozen=True, kw_only=True):
    """A customer and its teams."""

    id: Slug
    contact: str = ""
    budgets: tuple[Budget, ...] = ()
    rate_limits: RateLimits = RateLimits()
    tags: dict[str, str] = {}
    teams: tuple[Team, ...] = ()


class Credential(Strict, frozen=True, kw_only=True):
    """A reference to a provider secret: `env:NAME` or `file:/path`."""

    id: Slug
    ref: str
    weight: Annotated[int, msgspec.Meta(ge=0)] = 1
    region: str = ""


class Provider(Strict, frozen=True, kw_only=True):
    """Where requests go. `credential` is short for one entry of `credentials`."""

    name: Slug
    kind: Literal["anthropic"]
    base_url: str
    credential: str | None = None
    credentials: tuple[Credential, ...] = ()
    models: tuple[str, ...] = ()
    unpriced: Literal["deny", "ceiling", "flag"] = "deny"
    region: str = ""


class UsdPerMillion(Strict, frozen=True, kw_only=True):
    """US dollars per million tokens."""

    input: Usd | None = None
    output: Usd | None = None
    cache_write_5m: Usd | None = None
    cache_write_1h: Usd | None = None
    cache_read: Usd | None = None


class Price(Strict, frozen=True, kw_only=True):
    """A negotiated price: a rate card (`usd_per_million`) or a percentage, with dates.

    scope: `provider:NAME`, `customer:ID`, `team:ID` or `key:ID`; empty: everybody.
    """

    models: tuple[str, ...]
    scope: str = ""
    provider: str = ""
    percent: float | int | str | None = None
    usd_per_million: UsdPerMillion | None = None
    acts_on: Literal["list", "cost", "charge"] = "cost"
    from_: str = msgspec.field(default="", name="from")
    until: str = ""


class OrgHead(Strict, frozen=True, kw_only=True):
    """The tenant; left out, it is `default`. shard: of the ledger, where a new one begins; it stays there."""

    id: Slug = "default"
    budgets: tuple[Budget, ...] = ()
    rate_limits: RateLimits = RateLimits()
    shard: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9]{0,16}$")] = ""


class Organisation(Strict, frozen=True, kw_only=True):
    """The whole document."""

    org: OrgHead = OrgHead()
    contact: str = ""
    providers: tuple[Provider, ...] = ()
    prices: tuple[Price, ...] = ()
    customers: tuple[Customer, ...] = ()
