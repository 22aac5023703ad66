"""Query parameters of the admin API; unknown ones are errors."""

from typing import Annotated, Literal

import msgspec


class Paged(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """limit: items of one page. cursor: `next_cursor` of the page before."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100
    cursor: str = ""


class EntityQuery(Paged, frozen=True, kw_only=True):
    """id: slug; org, customer, team: uid, slug or path."""

    id: str = ""
    org: str = ""
    customer: str = ""
    team: str = ""


class BudgetQuery(Paged, frozen=True, kw_only=True):
    """scope: org, customer, team, key, provider_config. id: budget id. scope_id: slug or path."""

    org: str = ""
    scope: str = ""
    scope_id: str = ""
    id: str = ""


class OrgQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """org: slug or uid of the tenant."""

    org: str = "default"
    format: Literal["json", "yaml"] = "json"


class ApplyQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """dry_run: only tell the difference. prune: delete what the document leaves out, whoever manages it."""

    dry_run: bool = False
    prune: bool = False
    reason: str = ""


class DeleteQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """cascade: with everything below it; without, something below is an error."""

    cascade: bool = False


class Filters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """from, until `to` (exclusive): RFC 3339 or a date. org, customer, team, key, provider: uid, slug or path."""

    from_: str = msgspec.field(default="", name="from")
    to: str = ""
    org: str = ""
    customer: str = ""
    team: str = ""
    key: str = ""
    provider: str = ""
    model: str = ""
    session: str = ""


class UsageQuery(Filters, frozen=True, kw_only=True):
    """group_by: comma-separated customer, team, key, model, provider, session, day, hour. limit: most groups."""

    group_by: str = ""
    format: Literal["json", "csv", "parquet", "focus"] = "json"
    limit: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 10_000


class RequestsQuery(Filters, frozen=True, kw_only=True):
    """verdict: admitted, refused, rejected, free, unavailable. status: of the answer to the client."""

    verdict: str = ""
    status: Annotated[int, msgspec.Meta(ge=0, le=999)] = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100
    cursor: str = ""
