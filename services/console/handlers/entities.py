"""Customers, teams, keys, providers and prices one by one: the same five verbs for each kind."""

import base64
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from aiohttp import web

from services.console import api
from services.console.core import edit, views
from services.console.core.changes import ChangeSet
from services.console.core.paths import find, org_named, path_of, slug_of
from services.console.core.problem import Invalid
from services.console.handlers.context import (
    WRITER,
    Handler,
    answer,
    body,
    caller,
    check_revision,
    directory,
    etag,
    now,
    query,
    tree,
)
from services.console.handlers.organisation import made, new_uid
from shared.contracts.config import Customer, Entity, Key, Org, PriceOverride, Provider, Team
from shared.directory import Directory

View = Callable[[Directory, Any, int], api.Managed]


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of entity and how the API speaks of it."""

    name: str
    entity: type[Customer] | type[Team] | type[Key] | type[Provider] | type[PriceOverride]
    body: type[edit.Parts]
    view: View
    shown: type[api.Managed]
    page: type[api.Customers] | type[api.Teams] | type[api.Keys] | type[api.Providers] | type[api.Prices]


KINDS = (
    Kind(
        name="customers",
        entity=Customer,
        body=api.CustomerBody,
        view=views.customer,
        shown=api.CustomerView,
        page=api.Customers,
    ),
    Kind(name="teams", entity=Team, body=api.TeamBody, view=views.team, shown=api.TeamView, page=api.Teams),
    Kind(name="keys", entity=Key, body=api.KeyBody, view=views.key, shown=api.KeyView, page=api.Keys),
    Kind(
        name="providers",
        entity=Provider,
        body=api.ProviderBody,
        view=views.provider,
        shown=api.ProviderView,
        page=api.Providers,
    ),
    Kind(
        name="prices", entity=PriceOverride, body=api.PriceBody, view=views.price, shown=api.PriceView, page=api.Prices
    ),
)


def lister(kind: Kind) -> Handler:
    async def listed(request: web.Request) -> web.Response:
        asked, known = query(request, api.EntityQuery), directory(request)
        found = sorted((path_of(known, entity), entity.uid, entity) for entity in _filtered(known, kind, asked))
        after = _read_cursor(asked.cursor) if asked.cursor else ("", "")
        rest = [row for row in found if row[:2] > after]
        shown = rest[: asked.limit]
        following = _cursor(shown[-1][0], shown[-1][1]) if len(rest) > len(shown) else ""
        items = tuple(kind.view(known, entity, now(request)) for _, _, entity in shown)
        return answer({"items": items, "next_cursor": following})

    return listed


def _filtered(known: Directory, kind: Kind, asked: api.EntityQuery) -> Iterable[Entity]:
    """A filter that this kind of entity does not have leaves nothing."""
    wanted: dict[str, str] = {}
    if asked.org:
        org = org_named(known, asked.org)
        wanted["org"] = org.uid if org else asked.org
    if asked.customer:
        wanted["customer"] = find(known, Customer, asked.customer, "customer").uid
    if asked.team:
        wanted["team"] = find(known, Team, asked.team, "team").uid
    for entity in known.entities.values():
        if not isinstance(entity, kind.entity) or isinstance(entity, Org):
            continue
        if asked.id and asked.id not in (slug_of(entity), entity.uid, path_of(known, entity)):
            continue
        if all(getattr(entity, field, None) == uid for field, uid in wanted.items()):
            yield entity


def getter(kind: Kind) -> Handler:
    async def got(request: web.Request) -> web.Response:
        entity = named(request, kind)
        return answer(kind.view(directory(request), entity, now(request)), headers=etag(entity.revision))

    return got


def named(request: web.Request, kind: Kind) -> Entity:
    return find(directory(request), kind.entity, request.match_info["id"])


def creator(kind: Kind) -> Handler:
    async def created(request: web.Request) -> web.Response:
        asked = await body(request, kind.body)
        done = await request.app[WRITER].commit(
            lambda known: edit.create(known, asked, made(request)), caller(request).actor
        )
        entity = done.changes.puts[0]
        told = done.changes.secrets
        if isinstance(entity, Key):
            secret = told[0].secret if told else ""
            shown: api.Managed = views.key_made(directory(request), entity, now(request), secret)
        else:
            shown = kind.view(directory(request), entity, now(request))
        return answer(shown, 201, etag(entity.revision))

    return created


def changer(kind: Kind) -> Handler:
    async def changed(request: web.Request) -> web.Response:
        patch = await tree(request)
        uid = named(request, kind).uid

        def decide(known: Directory) -> ChangeSet:
            entity = find(known, kind.entity, uid)
            check_revision(request, entity.revision)
            return edit.change(known, entity, patch, new_uid)

        done = await request.app[WRITER].commit(decide, caller(request).actor)
        entity = done.changes.puts[0] if done.changes.puts else find(directory(request), kind.entity, uid)
        return answer(kind.view(directory(request), entity, now(request)), headers=etag(entity.revision))

    return changed


def deleter(kind: Kind) -> Handler:
    async def deleted(request: web.Request) -> web.Response:
        asked = query(request, api.DeleteQuery)
        uid = named(request, kind).uid

        def decide(known: Directory) -> ChangeSet:
            entity = find(known, kind.entity, uid)
            check_revision(request, entity.revision)
            return edit.remove(known, entity, asked.cascade)

        done = await request.app[WRITER].commit(decide, caller(request).actor)
        return answer(api.Applied(config_rev=done.config_rev, dry_run=False, changes=done.changes.changes))

    return deleted


def _cursor(path: str, uid: str) -> str:
    return base64.urlsafe_b64encode(f"{path}\0{uid}".encode()).decode()


def _read_cursor(text: str) -> tuple[str, str]:
    try:
        path, _, uid = base64.urlsafe_b64decode(text.encode()).decode().partition("\0")
    except ValueError:
        raise Invalid("cursor", "this is not a cursor of ours") from None
    return path, uid
