"""Every route of the admin API in one table: the application and the OpenAPI document are both made from it."""

import msgspec
from aiohttp import web

from services.console import api
from services.console.core.access import Need
from services.console.handlers import (
    budgets,
    entities,
    grants,
    keys,
    live,
    organisation,
    orgs,
    reports,
    session,
    status,
)
from services.console.handlers.acknowledged import acknowledged
from services.console.handlers.context import Handler
from services.console.handlers.guard import guarded
from services.console.handlers.idempotency import idempotent
from shared.contracts.organisation import Organisation

V1 = "/api/v1"


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One operation. partial: the body's fields are all optional. once: takes an Idempotency-Key.

    content: of the answer, where it is not JSON alone. revision: takes If-Match. waits: takes `wait`.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    need: Need = "read"
    query: type | None = None
    body: type | None = None
    answer: type | None = None
    status: int = 200
    content: tuple[str, ...] = ("application/json",)
    partial: bool = False
    once: bool = False
    revision: bool = False
    waits: bool = False


def _of_kind(kind: entities.Kind) -> tuple[Route, ...]:
    path, one = f"{V1}/{kind.name}", f"{V1}/{kind.name}/{{id}}"
    made = api.KeyMade if kind.name == "keys" else kind.shown
    return (
        Route(
            method="GET",
            path=path,
            handler=entities.lister(kind),
            summary=f"List {kind.name}",
            query=api.EntityQuery,
            answer=kind.page,
        ),
        Route(
            method="POST",
            path=path,
            handler=entities.creator(kind),
            summary=f"Make one of the {kind.name}",
            need="write",
            waits=True,
            body=kind.body,
            answer=made,
            status=201,
            once=True,
        ),
        Route(
            method="GET",
            path=one,
            handler=entities.getter(kind),
            summary=f"One of the {kind.name}, by uid, slug or path",
            answer=kind.shown,
        ),
        Route(
            method="PATCH",
            path=one,
            handler=entities.changer(kind),
            summary="Replace the fields given; null takes one back to its default",
            need="write",
            waits=True,
            body=kind.body,
            answer=kind.shown,
            partial=True,
            revision=True,
        ),
        Route(
            method="DELETE",
            path=one,
            handler=entities.deleter(kind),
            summary="Delete it; its history stays",
            need="write",
            waits=True,
            query=api.DeleteQuery,
            answer=api.Applied,
            revision=True,
        ),
    )


ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        path=f"{V1}/organisation",
        handler=organisation.apply,
        summary="Apply a document (YAML or JSON); secrets of new keys are told this once",
        need="write",
        waits=True,
        query=api.ApplyQuery,
        body=Organisation,
        answer=api.Applied,
        once=True,
    ),
    Route(
        method="GET",
        path=f"{V1}/organisation",
        handler=organisation.get,
        summary="The document as it stands, without secrets",
        query=api.OrgQuery,
        answer=Organisation,
        content=("application/json", "application/yaml"),
    ),
    Route(
        method="PATCH",
        path=f"{V1}/orgs/{{id}}",
        handler=orgs.move,
        summary="Move an organisation to another shard of the ledger, with all that it has spent and holds",
        need="write",
        waits=True,
        body=api.OrgPatch,
        answer=api.Applied,
        revision=True,
    ),
    *(route for kind in entities.KINDS for route in _of_kind(kind)),
    Route(
        method="POST",
        path=f"{V1}/keys/{{id}}/revoke",
        handler=keys.revoke,
        summary="Refuse a key from now on, for good",
        need="write",
        waits=True,
        answer=api.KeyView,
        once=True,
    ),
    Route(
        method="POST",
        path=f"{V1}/keys/{{id}}/rotate",
        handler=keys.rotate,
        summary="A new secret, told this once; the old ones go on for overlap_seconds",
        need="write",
        waits=True,
        body=api.RotateBody,
        answer=api.KeyMade,
        once=True,
    ),
    Route(
        method="GET",
        path=f"{V1}/budgets",
        handler=budgets.listed,
        summary="Budgets with limit, spent, held, remaining and reset, as they are now",
        query=api.BudgetQuery,
        answer=api.Budgets,
    ),
    Route(
        method="PATCH",
        path=f"{V1}/budgets/{{id}}",
        handler=budgets.change,
        summary="Change a budget in force; its counters stay",
        need="write",
        waits=True,
        body=api.BudgetPatch,
        answer=api.BudgetChanged,
    ),
    Route(
        method="GET",
        path=f"{V1}/budgets/{{id}}/grants",
        handler=grants.listed,
        summary="What was ever granted to a budget, the newest first",
        answer=api.Grants,
    ),
    Route(
        method="POST",
        path=f"{V1}/budgets/{{id}}/grants",
        handler=grants.give,
        summary="Money on top of the limit: a top-up of a total, elsewhere for this period",
        need="write",
        waits=True,
        body=api.GrantBody,
        answer=api.GrantChanged,
        status=201,
        once=True,
    ),
    Route(
        method="DELETE",
        path=f"{V1}/budgets/{{id}}/grants/{{uid}}",
        handler=grants.take_back,
        summary="End a grant now; what was used of it stays",
        need="write",
        waits=True,
        answer=api.GrantChanged,
    ),
    Route(
        method="GET",
        path=f"{V1}/usage",
        handler=reports.usage,
        summary="Tokens and money by group, as JSON, CSV, Parquet or FOCUS",
        query=api.UsageQuery,
        answer=api.UsageAnswer,
        content=("application/json", "text/csv", "application/vnd.apache.parquet"),
    ),
    Route(
        method="GET",
        path=f"{V1}/requests",
        handler=reports.requests,
        summary="The log of client requests, newest first, refused ones too",
        query=api.RequestsQuery,
        answer=api.Requests,
    ),
    Route(
        method="GET",
        path=f"{V1}/requests/{{request_id}}",
        handler=reports.story,
        summary="The whole story of one request",
        answer=api.RequestStory,
    ),
    Route(
        method="GET",
        path=f"{V1}/me",
        handler=keys.me,
        summary="For the holder of a virtual key: its budgets and what is left",
        need="key",
        answer=api.Me,
    ),
    Route(method="GET", path=f"{V1}/status", handler=status.status, summary="Health", answer=api.Status),
    Route(
        method="GET",
        path=f"{V1}/live",
        handler=live.live,
        summary="Server-sent events: request, balances, spend, trouble",
        content=("text/event-stream",),
    ),
    Route(
        method="POST",
        path=f"{V1}/session",
        handler=session.sign_in,
        summary="Sign in to the page with the admin token",
        need="public",
        body=api.SessionBody,
        answer=api.SessionAnswer,
        status=201,
    ),
    Route(
        method="GET",
        path=f"{V1}/session",
        handler=session.who_am_i,
        summary="Who is signed in",
        answer=api.SessionAnswer,
    ),
    Route(
        method="DELETE",
        path=f"{V1}/session",
        handler=session.sign_out,
        summary="Sign out",
        need="public",
        status=204,
    ),
)


def add_routes(app: web.Application) -> None:
    for route in ROUTES:
        handler = acknowledged(route.handler) if route.waits else route.handler
        handler = idempotent(handler) if route.once else handler
        app.router.add_route(route.method, route.path, guarded(handler, route.need))
