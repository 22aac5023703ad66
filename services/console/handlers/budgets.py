"""Budgets and their balances."""

import asyncio
import base64

from aiohttp import web

from services.console import api
from services.console.core import actions, describe, views
from services.console.core.document import typed
from services.console.core.paths import org_named, org_uid_of
from services.console.core.problem import Invalid
from services.console.handlers.context import BALANCE_STORE, WRITER, answer, body, caller, directory, now, query
from shared.contracts import organisation
from shared.errors import Unavailable

APPLIED_WITHIN_SECONDS = 1.0


async def listed(request: web.Request) -> web.Response:
    asked, known, at = query(request, api.BudgetQuery), directory(request), now(request)
    org = org_named(known, asked.org) if asked.org else None
    if asked.org and org is None:
        raise Invalid("org", f"there is no organisation `{asked.org}`", "not_found", 404)
    found = await request.app[BALANCE_STORE].all(org.uid if org else "")
    scopes = views.Scopes(known)
    items = [item for item in (scopes.item(balance, at) for balance in found.items) if _wanted(item, asked)]
    start = _offset(asked.cursor)
    page = tuple(items[start : start + asked.limit])
    more = start + len(page) < len(items)
    following = base64.urlsafe_b64encode(str(start + len(page)).encode()).decode() if more else ""
    return answer(api.Budgets(items=page, next_cursor=following, config_rev=found.config_rev))


def _wanted(item: api.BudgetItem, asked: api.BudgetQuery) -> bool:
    return (
        asked.scope in ("", item.scope)
        and asked.id in ("", item.id)
        and asked.scope_id in ("", item.scope_id, item.path, item.scope_uid)
    )


def _offset(cursor: str) -> int:
    try:
        return max(0, int(base64.urlsafe_b64decode(cursor.encode()).decode())) if cursor else 0
    except ValueError:
        raise Invalid("cursor", "this is not a cursor of ours") from None


async def change(request: web.Request) -> web.Response:
    """Answers when budget counts by the new rule, or after a second."""
    asked = await body(request, api.BudgetPatch)
    if all(getattr(asked, name) is None for name in asked.__struct_fields__):
        raise Invalid("", f"name one of {', '.join(asked.__struct_fields__)}")
    budget_id = request.match_info["id"]
    done = await request.app[WRITER].commit(
        lambda known: actions.change_budget(known, budget_id, asked), caller(request).actor
    )
    known = directory(request)
    entity, rule = actions.find_rule(known, budget_id)
    return answer(
        api.BudgetChanged(
            config_rev=done.config_rev,
            id=rule.id,
            budget=typed(organisation.Budget, describe.budget_tree(rule)),
            balance=await applied(request, org_uid_of(entity), rule.id, done.config_rev),
        )
    )


async def applied(request: web.Request, org: str, budget_id: str, config_rev: int) -> api.BudgetItem | None:
    """The balance once budget decides by this revision."""
    try:
        async with asyncio.timeout(APPLIED_WITHIN_SECONDS):
            while True:
                found = await request.app[BALANCE_STORE].all(org, (budget_id,))
                if found.config_rev >= config_rev and found.items:
                    return views.Scopes(directory(request)).item(found.items[0], now(request))
                await asyncio.sleep(0.02)
    except (TimeoutError, Unavailable):
        return None  # the change is made; that budget is slow is told by the missing balance
