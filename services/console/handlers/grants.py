"""Grants and top-ups of one budget. Answers when budget counts with them, or after a second."""

from aiohttp import web

from services.console import api
from services.console.core import grants
from services.console.handlers.budgets import applied
from services.console.handlers.context import WRITER, answer, body, caller, directory, now
from services.console.handlers.organisation import made
from shared.contracts.config import Grant


async def listed(request: web.Request) -> web.Response:
    return answer(api.Grants(items=grants.listed(directory(request), request.match_info["id"], now(request))))


async def give(request: web.Request) -> web.Response:
    asked = await body(request, api.GrantBody)
    budget_id, actor = request.match_info["id"], caller(request).actor
    done = await request.app[WRITER].commit(
        lambda known: grants.give(known, budget_id, asked, actor, made(request)), actor, "grant"
    )
    grant = done.changes.puts[0]
    assert isinstance(grant, Grant)
    return answer(await _told(request, grant, done.config_rev), 201)


async def take_back(request: web.Request) -> web.Response:
    budget_id, uid = request.match_info["id"], request.match_info["uid"]
    done = await request.app[WRITER].commit(
        lambda known: grants.take_back(known, budget_id, uid, now(request)), caller(request).actor, "take back"
    )
    grant = directory(request).entities[uid]
    assert isinstance(grant, Grant)
    return answer(await _told(request, grant, done.config_rev))


async def _told(request: web.Request, grant: Grant, config_rev: int) -> api.GrantChanged:
    return api.GrantChanged(
        config_rev=config_rev,
        grant=grants.view(grant, now(request)),
        balance=await applied(request, grant.org, grant.budget_id, config_rev),
    )
