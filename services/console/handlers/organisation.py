"""The whole organisation: apply a document, get it back."""

import secrets

import msgspec
from aiohttp import web
from ulid import ULID

from services.console import api
from services.console.core import describe, organisation
from services.console.core.actions import Made
from services.console.core.changes import ChangeSet
from services.console.core.paths import org_named
from services.console.core.problem import Invalid
from services.console.handlers.context import WRITER, answer, caller, directory, now, query
from shared.directory import Directory


def new_uid() -> str:
    return str(ULID())


def new_secret() -> str:
    return f"vk-{secrets.token_urlsafe(32)}"


def made(request: web.Request) -> Made:
    return Made(uid=new_uid, secret=new_secret, now=now(request))


async def apply(request: web.Request) -> web.Response:
    asked = query(request, api.ApplyQuery)
    is_json = "json" in request.content_type
    document = organisation.parse_organisation(await request.read(), is_json=is_json)

    def decide(known: Directory) -> ChangeSet:
        return organisation.diff(
            known, document, new_uid=new_uid, new_secret=new_secret, now=now(request), prune=asked.prune
        )

    if asked.dry_run:
        changes = decide(directory(request))
        return answer(
            api.Applied(config_rev=directory(request).config_rev, dry_run=True, changes=changes.changes, secrets=())
        )
    done = await request.app[WRITER].commit(decide, caller(request).actor, asked.reason or "apply")
    return answer(
        api.Applied(
            config_rev=done.config_rev, dry_run=False, changes=done.changes.changes, secrets=done.changes.secrets
        )
    )


async def get(request: web.Request) -> web.Response:
    asked = query(request, api.OrgQuery)
    org = org_named(directory(request), asked.org)
    if org is None:
        raise Invalid("org", f"there is no organisation `{asked.org}`", "not_found", 404)
    document = describe.document(directory(request), org)
    if asked.format == "yaml":
        return web.Response(body=msgspec.yaml.encode(document), content_type="application/yaml")
    return answer(document)
