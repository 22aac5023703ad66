"""What is governed, as the bus carries it: atomic change sets of entities with a rising revision. Written by console alone.

The human form (files and admin API, dollars and slugs) is in `organisation.py`; `shared/directory` folds change sets.
"""

from shared.contracts.message import Message, Micros, NanoUSD, Part, Uid

CONFIG_CHANGED = "config.changed"  # event, CONFIG: ConfigChanged


class BudgetRule(Part, frozen=True, kw_only=True):
    """A limit on the sum of everything below its scope. Its id is `scope:scope_uid:period[:name]`.

    period: hour, day, week, month, quarter, year, total. timezone: IANA. anchor: ISO date that periods count from, or "".
    mode: hard, soft, shadow. basis: list, cost, charge. hold: adaptive, bound, expected. at_cap: cut, finish.
    """

    id: str
    limit_nano_usd: NanoUSD
    period: str
    name: str = ""
    timezone: str = "UTC"
    anchor: str = ""
    rollover_cap_nano_usd: NanoUSD = 0
    mode: str = "hard"
    basis: str = "cost"
    alerts_ppm: tuple[int, ...] = (500_000, 800_000, 950_000)
    hold: str = "adaptive"
    at_cap: str = "cut"
    queue_seconds: int = 20
    per: str = ""
    match: dict[str, str] = {}
    contact: str = ""


class ModelRateLimits(Part, frozen=True, kw_only=True):
    """0: no limit. Requests are those of clients, whatever attempts they take; tokens of all classes, cache reads too."""

    requests_per_minute: int = 0
    requests_per_hour: int = 0
    requests_per_day: int = 0
    tokens_per_minute: int = 0
    tokens_per_hour: int = 0
    tokens_per_day: int = 0
    concurrent_requests: int = 0


class RateLimits(ModelRateLimits, frozen=True, kw_only=True):
    """On everything below a scope; models: more of them for the models that a shell pattern fits. All that fit count."""

    models: dict[str, ModelRateLimits] = {}


class Org(Part, frozen=True, kw_only=True, tag="org"):
    """The tenant: lives whole in one shard."""

    uid: Uid
    id: str
    contact: str = ""
    budgets: tuple[BudgetRule, ...] = ()
    rate_limits: RateLimits = RateLimits()
    shard: str = "0"
    managed_by: str = "file"
    revision: int = 1


class Customer(Part, frozen=True, kw_only=True, tag="customer"):
    """Owns teams."""

    uid: Uid
    org: Uid
    id: str
    contact: str = ""
    budgets: tuple[BudgetRule, ...] = ()
    rate_limits: RateLimits = RateLimits()
    tags: dict[str, str] = {}
    managed_by: str = "file"
    revision: int = 1


class Team(Part, frozen=True, kw_only=True, tag="team"):
    """Owns keys."""

    uid: Uid
    org: Uid
    customer: Uid
    id: str
    contact: str = ""
    budgets: tuple[BudgetRule, ...] = ()
    rate_limits: RateLimits = RateLimits()
    tags: dict[str, str] = {}
    managed_by: str = "file"
    revision: int = 1


class Secret(Part, frozen=True, kw_only=True):
    """One secret of a key. hash: SHA-256 of it (256 random bits need no salt). hint: its first characters, for people."""

    id: str
    hash: bytes
    hint: str
    valid_from: Micros = 0
    valid_until: Micros = 0


class ProviderConfig(Part, frozen=True, kw_only=True):
    """What one key may do with one provider. An empty tuple on the key means every provider."""

    uid: Uid
    provider: Uid
    budgets: tuple[BudgetRule, ...] = ()
    models: tuple[str, ...] = ()


class Key(Part, frozen=True, kw_only=True, tag="key"):
    """A virtual key. models: shell patterns, empty allows all. revoked_at: 0 while it is good."""

    uid: Uid
    org: Uid
    customer: Uid
    team: Uid
    id: str
    owner: str = ""
    contact: str = ""
    secrets: tuple[Secret, ...] = ()
    budgets: tuple[BudgetRule, ...] = ()
    session_budget_nano_usd: NanoUSD = 0
    rate_limits: RateLimits = RateLimits()
    models: tuple[str, ...] = ()
    providers: tuple[ProviderConfig, ...] = ()
    tags: dict[str, str] = {}
    revoked_at: Micros = 0
    managed_by: str = "file"
    revision: int = 1


class Credential(Part, frozen=True, kw_only=True):
    """A reference to a provider's secret: `env:NAME` or `file:/path`. The secret itself never travels."""

    id: str
    ref: str
    weight: int = 1
    region: str = ""


class Provider(Part, frozen=True, kw_only=True, tag="provider"):
    """Where requests go. kind: anthropic. models: shell patterns it serves, empty all. unpriced: deny, ceiling, flag."""

    uid: Uid
    org: Uid
    name: str
    kind: str
    base_url: str
    credentials: tuple[Credential, ...] = ()
    models: tuple[str, ...] = ()
    unpriced: str = "deny"
    region: str = ""
    managed_by: str = "file"
    revision: int = 1


class PriceOverride(Part, frozen=True, kw_only=True, tag="price"):
    """A negotiated price. scope: `provider|customer|team|key:<uid>`, or "" for all.

    Either percent_ppm (signed parts per million: -120_000 is 12 % off) or rates (pico-USD per token by meter).
    acts_on: cost, charge or list; a card for a model without one acts on all three. from_at, until_at: 0 is open.
    """

    uid: Uid
    org: Uid
    models: tuple[str, ...]
    scope: str = ""
    provider: Uid = ""
    percent_ppm: int = 0
    rates: dict[str, int] = {}
    acts_on: str = "cost"
    from_at: Micros = 0
    until_at: Micros = 0
    managed_by: str = "file"
    revision: int = 1


class Grant(Part, frozen=True, kw_only=True, tag="grant"):
    """Money on top of one budget's limit: a top-up of a `total`, elsewhere for the period in which granted_at lies.

    budget_id: a rule's id, or `RULE:member:KEY` for one member's share. nano_usd: above 0. expires_at: 0 is never; what is
    not used by then lapses, and so is a grant taken back: it ends. No file makes, changes or removes one.
    """

    uid: Uid
    org: Uid
    budget_id: str
    nano_usd: NanoUSD
    granted_at: Micros
    expires_at: Micros = 0
    note: str = ""
    actor: str = ""
    managed_by: str = "console"
    revision: int = 1


Entity = Org | Customer | Team | Key | Provider | PriceOverride | Grant


class ConfigChanged(Message, frozen=True, kw_only=True):
    """One atomic change set. more: the next message carries on the same revision; apply when more is False.

    config_rev rises by one with each set. A set that was broken off is replaced by one of a higher revision.
    """

    config_rev: int
    at: Micros
    actor: str
    puts: tuple[Entity, ...] = ()
    deletes: tuple[Uid, ...] = ()
    reason: str = ""
    more: bool = False
