"""Joins the console together."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path

from aiohttp import web

from services.console import openapi
from services.console.handlers import context, guard, pages
from services.console.handlers.idempotency import IDEMPOTENCY, Idempotency
from services.console.handlers.routes import add_routes
from services.console.settings import Settings
from services.console.stores.analytics import Analytics, connector
from services.console.stores.balances import BalanceStore
from services.console.stores.config import ConfigWriter
from services.console.stores.edges import Edges
from services.console.stores.feed import Feed
from services.console.stores.in_force import InForceStore
from shared import clock
from shared.bus import open_bus
from shared.bus.config import ConfigFollower
from shared.contracts.streams import LEDGER, REQUESTS
from shared.errors import Unavailable
from shared.service import READY, end, new_app, watch
from shared.settings import SettingsError


def build_app(settings: Settings) -> web.Application:
    """Raises SettingsError when there is no admin token: an open console is never what was meant."""
    app = new_app()
    app._client_max_size = settings.body_bytes
    app.middlewares.append(guard.problems)
    app.on_response_prepare.append(guard.on_prepare)
    app[context.SETTINGS] = settings
    app[context.CLOCK] = clock.now
    app[context.ADMIN_TOKEN] = admin_token(settings)
    app[IDEMPOTENCY] = Idempotency()
    app.cleanup_ctx.append(bus)
    app.cleanup_ctx.append(analytics)
    app.cleanup_ctx.append(config)
    app.cleanup_ctx.append(feed)
    add_routes(app)
    app.router.add_get(openapi.PATH, _described)
    app.router.add_get("/", pages.index)
    app.router.add_get("/static/{name:.+}", pages.static)
    return app


async def _described(request: web.Request) -> web.Response:
    return context.answer(openapi.document())


def admin_token(settings: Settings) -> str:
    token = settings.admin_token
    if not token and settings.admin_token_file:
        token = Path(settings.admin_token_file).read_text(encoding="utf-8").strip()
    if not token:
        raise SettingsError("set CONSOLE_ADMIN_TOKEN or CONSOLE_ADMIN_TOKEN_FILE")
    return token


async def bus(app: web.Application) -> AsyncIterator[None]:
    async with open_bus(app[context.SETTINGS].bus, "console") as opened:
        app[context.BUS] = opened
        app[READY] = lambda: opened.connected
        yield


async def analytics(app: web.Application) -> AsyncIterator[None]:
    app[context.ANALYTICS] = Analytics(connector(app[context.SETTINGS]))
    yield
    await app[context.ANALYTICS].close()


async def config(app: web.Application) -> AsyncIterator[None]:
    """Ready once all of CONFIG is known."""
    opened, settings = app[context.BUS], app[context.SETTINGS]
    follower = ConfigFollower(opened)
    async with _running(app, follower.run(), "config"):
        try:
            async with asyncio.timeout(settings.bus.connect_timeout_seconds):
                await follower.caught_up()
        except TimeoutError:
            raise Unavailable("bus") from None
        app[context.WRITER] = ConfigWriter(opened, follower, app[context.CLOCK])
        app[context.BALANCE_STORE] = BalanceStore(opened, follower.directory)
        app[context.EDGES] = Edges(app[context.CLOCK])
        await app[context.EDGES].listen(opened)
        app[context.IN_FORCE] = InForceStore(opened, follower.directory, app[context.EDGES])
        yield


async def feed(app: web.Application) -> AsyncIterator[None]:
    opened = app[context.BUS]
    made = Feed(
        opened,
        app[context.WRITER].directory,
        app[context.BALANCE_STORE],
        app[context.ANALYTICS],
        app[context.CLOCK],
    )
    app[context.FEED] = made
    app.on_shutdown.append(_close_pages)
    requests, ledger = (await opened.end(REQUESTS)).seq, (await opened.end(LEDGER)).seq
    async with (
        _running(app, made.follow_requests(requests), "requests"),
        _running(app, made.follow_ledger(ledger), "ledger"),
        _running(app, made.tick(), "tick"),
    ):
        yield


async def _close_pages(app: web.Application) -> None:
    """Else an open page would keep the console from ending."""
    app[context.FEED].close_all()


@contextlib.asynccontextmanager
async def _running(app: web.Application, work: Coroutine[object, object, None], name: str) -> AsyncIterator[None]:
    """A task that must not end while the console lives."""
    task = asyncio.create_task(work, name=name)
    watch(app, task)
    try:
        yield
    finally:
        await end(task)
