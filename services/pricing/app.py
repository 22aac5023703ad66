"""The one place where the objects of pricing are made and joined."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web
from ulid import ULID

from services.pricing.handlers import Pricer
from services.pricing.settings import Settings
from services.pricing.stores import read_book
from shared.bus import Bus, open_bus
from shared.service import READY, end, new_app, watch

SETTINGS = web.AppKey("settings", Settings)
BUS = web.AppKey("bus", Bus)
PRICER = web.AppKey("pricer", Pricer)


def build_app(settings: Settings) -> web.Application:
    app = new_app()
    app[SETTINGS] = settings
    app[READY] = lambda: PRICER in app and app[PRICER].started.is_set() and app[BUS].connected
    app.cleanup_ctx.append(bus)
    app.cleanup_ctx.append(pricer)
    return app


async def bus(app: web.Application) -> AsyncIterator[None]:
    async with open_bus(app[SETTINGS].bus, "pricing") as opened:
        app[BUS] = opened
        yield


async def pricer(app: web.Application) -> AsyncIterator[None]:
    """Follows CONFIG and USAGE; either task's end is the end of the process."""
    settings = app[SETTINGS]
    app[PRICER] = Pricer(app[BUS], read_book(Path(settings.book_file)), settings, str(ULID()))
    tasks = [
        asyncio.create_task(app[PRICER].config.run(), name="config"),
        asyncio.create_task(app[PRICER].run(), name="pricing"),
        asyncio.create_task(app[PRICER].tell_behind(), name="behind"),
    ]
    for task in tasks:
        watch(app, task)
    yield
    await end(*tasks)
