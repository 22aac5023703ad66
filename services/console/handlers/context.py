"""What handlers share: where things are kept on the application, and how requests are read and answered."""

import datetime
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
from aiohttp import web

from services.console.core.access import Caller
from services.console.core.document import json_tree, typed
from services.console.core.problem import Invalid, of_validation
from services.console.settings import Settings
from services.console.stores.analytics import Analytics
from services.console.stores.balances import BalanceStore
from services.console.stores.config import ConfigWriter
from services.console.stores.edges import Edges
from services.console.stores.feed import Feed
from services.console.stores.in_force import InForceStore
from shared.bus import Bus
from shared.clock import Clock
from shared.directory import Directory

SETTINGS = web.AppKey("settings", Settings)
BUS = web.AppKey("bus", Bus)
WRITER = web.AppKey("writer", ConfigWriter)
BALANCE_STORE = web.AppKey("balances", BalanceStore)
ANALYTICS = web.AppKey("analytics", Analytics)
IN_FORCE = web.AppKey("in_force", InForceStore)
EDGES = web.AppKey("edges", Edges)
FEED = web.AppKey("feed", Feed)
CLOCK: web.AppKey[Clock] = web.AppKey("clock", Callable)  # type: ignore[arg-type]  # a key wants a class; Clock is a type
ADMIN_TOKEN = web.AppKey("admin_token", str)
CALLER = web.RequestKey("caller", Caller)

WAIT = "wait"
"""Parameter of whatever changes the organisation; see `handlers/acknowledged.py`."""

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def directory(request: web.Request) -> Directory:
    return request.app[WRITER].directory


def now(request: web.Request) -> int:
    return request.app[CLOCK]()


def caller(request: web.Request) -> Caller:
    """Set by the guard before the handler runs."""
    return request[CALLER]


def query(request: web.Request, kind: type[T]) -> T:
    """The parameters of the URL; unknown and doubled ones are errors."""
    for name in request.query:
        if len(request.query.getall(name)) > 1:
            raise Invalid(name, "this parameter stands twice", "doubled_field")
    try:
        given = {name: value for name, value in request.query.items() if name != WAIT}
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise of_validation(error) from None


async def tree(request: web.Request) -> dict[str, object]:
    """The JSON object of the body."""
    data = await request.read()
    found = json_tree(data) if data else {}
    if not isinstance(found, dict):
        raise Invalid("", "the body is not a JSON object", "invalid_json")
    return found


async def body(request: web.Request, kind: type[T]) -> T:
    return typed(kind, await tree(request))


def answer(value: object, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(value, enc_hook=_plain),
        status=status,
        content_type="application/json",
        headers=headers,
    )


def _plain(value: object) -> object:
    """What rows of ClickHouse may hold beside the plain types."""
    if isinstance(value, datetime.date):
        return value.isoformat()
    raise TypeError(type(value).__name__)


def etag(revision: int) -> dict[str, str]:
    return {"ETag": f'"{revision}"'}


def check_revision(request: web.Request, revision: int) -> None:
    """If-Match, when given, must name the revision there is. Raises Invalid 412."""
    wanted = request.headers.get("If-Match", "*").removeprefix("W/").strip('"')
    if wanted not in ("*", str(revision)):
        raise Invalid("", f"the revision is {revision}, not {wanted[:40]}: read it again", "revision_changed", 412)
