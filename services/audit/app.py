"""The one place where the objects of audit are made and joined."""

import asyncio
from collections.abc import AsyncIterator

from aiohttp import web

from services.audit.handlers import Recorder
from services.audit.settings import Settings
from shared import clock
from shared.bus import Bus, open_bus
from shared.service import READY, end, new_app, watch

SETTINGS = web.AppKey("settings", Settings)
BUS = web.AppKey("bus", Bus)


def build_app(settings: Settings) -> web.Application:
    app = new_app()
    app[SETTINGS] = settings
    app.cleanup_ctx.append(bus)
    app.cleanup_ctx.append(recorder)
    return app


async def bus(app: web.Application) -> AsyncIterator[None]:
    async with open_bus(app[SETTINGS].bus, "audit") as opened:
        app[BUS] = opened
        yield


async def recorder(app: web.Application) -> AsyncIterator[None]:
    """Its end is the end of the process."""
    recording = Recorder(app[BUS], app[SETTINGS], clock.now)
    app[READY] = lambda: recording.started.is_set() and app[BUS].connected
    task = asyncio.create_task(recording.run(), name="audit")
    watch(app, task)
    yield
    await end(task)
