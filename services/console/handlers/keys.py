"""What is done to a key beyond changing it, and what its holder may see."""

from aiohttp import web

from services.console import api
from services.console.core import actions, views
from services.console.core.changes import ChangeSet
from services.console.core.paths import find
from services.console.handlers.context import (
    BALANCE_STORE,
    WRITER,
    answer,
    body,
    caller,
    directory,
    etag,
    now,
)
from services.console.handlers.guard import KEY
from services.console.handlers.organisation import made
from shared.contracts.attribution import Principal
from shared.contracts.config import Key
from shared.directory import Directory


async def revoke(request: web.Request) -> web.Response:
    uid = find(directory(request), Key, request.match_info["id"]).uid

    def decide(known: Directory) -> ChangeSet:
        return actions.revoke(known, find(known, Key, uid), now(request))

    await request.app[WRITER].commit(decide, caller(request).actor, "revoke")
    key = find(directory(request), Key, uid)
    return answer(views.key(directory(request), key, now(request)), headers=etag(key.revision))


async def rotate(request: web.Request) -> web.Response:
    asked = await body(request, api.RotateBody)
    uid = find(directory(request), Key, request.match_info["id"]).uid

    def decide(known: Directory) -> ChangeSet:
        return actions.rotate(known, find(known, Key, uid), asked.overlap_seconds, made(request))

    done = await request.app[WRITER].commit(decide, caller(request).actor, "rotate")
    key = done.changes.puts[0]
    assert isinstance(key, Key)
    shown = views.key_made(directory(request), key, now(request), done.changes.secrets[0].secret)
    return answer(shown, headers=etag(key.revision))


async def me(request: web.Request) -> web.Response:
    """Budgets of the whole path, with each of the key's provider configs."""
    key = request[KEY]
    known, at = directory(request), now(request)
    ids = _budget_ids(known, key)
    found = (await request.app[BALANCE_STORE].all(key.org, ids)).items if ids else ()
    scopes = views.Scopes(known)
    items = tuple(scopes.item(balance, at) for balance in found)
    hard = [item.remaining_nano_usd for item in items if item.mode == "hard" and item.scope != "provider_config"]
    return answer(
        api.Me(
            key=key.id,
            key_uid=key.uid,
            team=known.name(key.team),
            customer=known.name(key.customer),
            org=known.name(key.org),
            owner=key.owner,
            contact=known.contact(known.principal(key)),
            models=key.models,
            budgets=items,
            remaining_nano_usd=min(hard, default=None),
        )
    )


def _budget_ids(known: Directory, key: Key) -> tuple[str, ...]:
    """A `per: member` rule is this key's share of it."""
    paths: list[Principal] = [known.principal(key)] + [known.principal(key, part.uid) for part in key.providers]
    rules = {rule.id: rule for path in paths for _, _, rule in known.rules_on(path)}
    return tuple(f"{rule.id}:member:{key.uid}" if rule.per else rule.id for rule in rules.values())
