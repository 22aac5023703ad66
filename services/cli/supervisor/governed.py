"""The organisation at the start of `up`: the file's, the default one at the first start, else the one that is there."""

import asyncio
import secrets
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from services.cli.api import Api, unit
from services.cli.errors import Trouble
from services.cli.supervisor import organisation
from services.cli.supervisor.data import Layout, read_secret, write_secret
from services.cli.supervisor.organisation import Document

ORGANISATION = "/api/v1/organisation"


class Wanted(msgspec.Struct, frozen=True):
    """An organisation file that was read before anything started."""

    name: str
    text: str
    document: Document


class Applied(msgspec.Struct, frozen=True):
    """config_rev: the revision that holds it. document: at least its providers.

    first_key_name: the path of the key whose secret first_key is, empty when it is accepted no more.

    made: secrets of keys, by path, that the console has just made and tells this once.
    """

    document: Document
    config_rev: int
    first_key_name: str
    first_key: str
    made: dict[str, str]


def read(path: Path) -> Wanted:
    """Raises Trouble: not there, not YAML, or a field that is wrong."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Trouble(f"the organisation file {path} cannot be read: {error}") from None
    return Wanted(str(path), text, organisation.parse(text, str(path)))


def default(layout: Layout) -> Wanted:
    """Our own document, with a secret that is kept before it is applied: a crash between the two loses nothing."""
    text = resources.files("services.cli").joinpath("default-organisation.yaml").read_text()
    secret = read_secret(layout.first_key) or f"vk-{secrets.token_urlsafe(32)}"
    write_secret(layout.first_key, secret)
    document = organisation.with_first_secret(organisation.parse(text, "the default organisation"), secret)
    return Wanted("the default organisation", organisation.dump(document), document)


async def govern(
    api: Api, layout: Layout, wanted: Wanted | None, simulator_url: str, former: frozenset[str]
) -> Applied:
    """Put into force what is wanted (None: what is there), with the traffic routed to where it can be served."""
    if wanted is None:
        return await _reroute(api, layout, simulator_url, former)
    document = organisation.routed(wanted.document, simulator_url, former)
    if document == wanted.document:
        answer = await asyncio.to_thread(api.post_yaml, ORGANISATION, wanted.text)
    else:
        # the console reads the text as it was written, and refuses what a rewritten one would hide
        await asyncio.to_thread(api.post_yaml, ORGANISATION, wanted.text, {"dry_run": "true"})
        answer = await asyncio.to_thread(api.post_yaml, ORGANISATION, organisation.dump(document))
    return await _applied(api, layout, document, answer)


async def _reroute(api: Api, layout: Layout, simulator_url: str, former: frozenset[str]) -> Applied:
    """Nothing changes but the address of providers whose key came, went, or whose simulator moved."""
    present: Document = {"providers": await asyncio.to_thread(api.all, "/api/v1/providers")}
    document = organisation.routed(present, simulator_url, former)
    for before, after in zip(present["providers"], document["providers"], strict=True):
        if before != after:
            path = f"/api/v1/providers/{unit(after['uid'])}"
            await asyncio.to_thread(api.patch, path, {"base_url": after["base_url"]})
    status = await asyncio.to_thread(api.get, "/api/v1/status")
    return await _applied(api, layout, document, {"config_rev": status["config_rev"]})


async def _applied(api: Api, layout: Layout, document: Document, answer: Mapping[str, Any]) -> Applied:
    """Keep the secret of the first key: it is told once, and `up` shows it at every start."""
    made = {str(item["key"]): str(item["secret"]) for item in answer.get("secrets") or ()}
    name, secret = organisation.first_key(document) or ("", "")
    if secret := secret or made.get(name, ""):
        write_secret(layout.first_key, secret)
    secret = read_secret(layout.first_key)
    holder = await asyncio.to_thread(_holder, Api(api.url, secret)) if secret else ""
    return Applied(document, int(answer["config_rev"]), holder, secret, made)


def _holder(as_key: Api) -> str:
    """`customer/team/key`, as the console tells the holder of the secret; empty when it accepts it no more."""
    try:
        me = as_key.get("/api/v1/me")
    except Trouble:
        return ""
    return f"{me['customer']}/{me['team']}/{me['key']}"
