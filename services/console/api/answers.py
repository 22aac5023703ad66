"""What the admin API gives; every field is written, money is integer nano-USD."""

from typing import Annotated, Literal

import msgspec

from services.console.core.changes import Change, MadeSecret
from shared.contracts.message import NanoUSD
from shared.contracts.organisation import Budget

Instant = Annotated[str, msgspec.Meta(description="RFC 3339 in UTC, microseconds; empty: did not happen, never")]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the API gives; every field is written, but for `in_force`, which is asked for."""


class Problem(Answer, frozen=True, kw_only=True):
    """field: path of what is wrong, where it is one field."""

    code: str
    message: str
    field: str = ""


class ErrorAnswer(Answer, frozen=True, kw_only=True):
    """Every answer of 4xx and 5xx."""

    error: Problem


class EdgeInForce(Answer, frozen=True, kw_only=True):
    """lagging: it has not told that it knows the revision, or has not acknowledged a decision."""

    edge: str
    config_rev: int
    decision_version: int
    lagging: bool


class ShardInForce(Answer, frozen=True, kw_only=True):
    """lagging: its owner does not answer, or decides by an older revision. config_rev: 0 without an answer.

    moving: uids of organisations on their way from or to it.
    """

    shard: str
    config_rev: int
    lagging: bool
    moving: tuple[str, ...] = ()


class InForce(Answer, frozen=True, kw_only=True):
    """How far a change has come, where `wait` asked for it. complete: nobody lags. lagging: ids of the edges that do.

    waited_ms: since the call came in. Edges that were not heard for a minute are not among them.
    """

    config_rev: int
    complete: bool
    waited_ms: int
    edges: tuple[EdgeInForce, ...]
    shards: tuple[ShardInForce, ...]
    lagging: tuple[str, ...]


class Applied(Answer, frozen=True, kw_only=True):
    """config_rev: the revision that holds it; with dry_run or without changes, the one there was."""

    config_rev: int
    dry_run: bool
    changes: tuple[Change, ...]
    secrets: tuple[MadeSecret, ...] = ()
    in_force: InForce | msgspec.UnsetType = msgspec.UNSET


class BudgetItem(Answer, frozen=True, kw_only=True):
    """One budget in its current period.

    limit: what may be spent in all, rolled_over and granted included.
    remaining: what a call could hold now, max(0, limit - spent - held). scope_id, path: slug and path of its entity.
    forecast: spend at the end of the period at its pace so far; None where it cannot be told yet.
    utilization_ppm: (spent + held) of the limit in parts per million. resets_at: None, never.
    """

    id: str
    scope: str
    scope_id: str
    scope_uid: str
    path: str
    org: str
    name: str
    period: str
    period_id: str
    timezone: str
    mode: str
    limit_nano_usd: NanoUSD
    spent_nano_usd: NanoUSD
    held_nano_usd: NanoUSD
    remaining_nano_usd: NanoUSD
    utilization_ppm: int
    forecast_nano_usd: NanoUSD | None
    alerts_ppm: tuple[int, ...]
    resets_at: str | None
    blocked: bool
    rolled_over_nano_usd: NanoUSD
    granted_nano_usd: NanoUSD


class Budgets(Answer, frozen=True, kw_only=True):
    """config_rev: the organisation these balances are measured against."""

    items: tuple[BudgetItem, ...]
    next_cursor: str
    config_rev: int


class BudgetChanged(Answer, frozen=True, kw_only=True):
    """balance: under the new rule; None when budget had not applied it within a second."""

    config_rev: int
    id: str
    budget: Budget
    balance: BudgetItem | None
    in_force: InForce | msgspec.UnsetType = msgspec.UNSET


class GrantView(Answer, frozen=True, kw_only=True):
    """Money on top of one budget's limit. ended: it lapsed or was taken back; what was used of it by then stays."""

    uid: str
    budget_id: str
    amount_nano_usd: NanoUSD
    granted_at: Instant
    expires_at: Instant
    ended: bool
    note: str
    actor: str


class Grants(Answer, frozen=True, kw_only=True):
    """All that were ever given to one budget, the newest first."""

    items: tuple[GrantView, ...]


class GrantChanged(Answer, frozen=True, kw_only=True):
    """balance: with the grant; None when budget had not applied it within a second."""

    config_rev: int
    grant: GrantView
    balance: BudgetItem | None
    in_force: InForce | msgspec.UnsetType = msgspec.UNSET


class SessionAnswer(Answer, frozen=True, kw_only=True):
    """Who is signed in."""

    role: str
    actor: str
    expires_at: Instant


class Me(Answer, frozen=True, kw_only=True):
    """The holder of a virtual key.

    remaining: the least over the hard budgets of its path, those of single providers left out; None without one.
    """

    key: str
    key_uid: str
    team: str
    customer: str
    org: str
    owner: str
    contact: str
    models: tuple[str, ...]
    budgets: tuple[BudgetItem, ...]
    remaining_nano_usd: NanoUSD | None


class ServiceStatus(Answer, frozen=True, kw_only=True):
    """state: ok, down, or unknown for those that cannot be asked. detail: why."""

    name: str
    state: Literal["ok", "down", "unknown"]
    detail: str = ""


class EdgeView(Answer, frozen=True, kw_only=True):
    """An edge's last heartbeat."""

    edge: str
    at: Instant
    config_rev: int
    decision_version: int
    live: int
    spool_records: int
    draining: bool


class StreamEnd(Answer, frozen=True, kw_only=True):
    """The last sequence of a log."""

    stream: str
    seq: int


class Status(Answer, frozen=True, kw_only=True):
    """What the console knows of the installation."""

    version: str
    config_rev: int
    services: tuple[ServiceStatus, ...]
    edges: tuple[EdgeView, ...]
    streams: tuple[StreamEnd, ...]
    edge_url: str = ""
