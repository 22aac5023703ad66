"""An organisation as a whole: where it lives."""

from aiohttp import web

from services.console import api
from services.console.core import moves
from services.console.core.changes import ChangeSet
from services.console.core.problem import Invalid
from services.console.handlers.context import BALANCE_STORE, WRITER, answer, body, caller, check_revision, directory
from shared.directory import Directory
from shared.errors import Unavailable


async def move(request: web.Request) -> web.Response:
    """To a shard that has an owner: with none, nobody would decide for it."""
    name, asked = request.match_info["id"], await body(request, api.OrgPatch)
    moves.org_of(directory(request), name)
    try:
        await request.app[BALANCE_STORE].of_shard(asked.shard, budget_ids=("none",))
    except Unavailable:
        raise Invalid("shard", f"no owner answers for shard {asked.shard}", "no_owner", 409) from None

    def decide(known: Directory) -> ChangeSet:
        check_revision(request, moves.org_of(known, name).revision)
        return moves.move(known, name, asked.shard)

    done = await request.app[WRITER].commit(decide, caller(request).actor, f"move to shard {asked.shard}")
    return answer(api.Applied(config_rev=done.config_rev, dry_run=False, changes=done.changes.changes))
