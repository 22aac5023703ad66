"""Where analytics is put together."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from services.analytics.core.directory import DIRECTORY
from services.analytics.core.requests import REQUESTS
from services.analytics.core.usage import USAGE
from services.analytics.handlers import logs
from services.analytics.handlers.facade import facade
from services.analytics.handlers.sink import Sink
from services.analytics.settings import Settings
from services.analytics.stores.database import Database, open_database
from services.analytics.stores.migrations import migrate
from services.analytics.stores.reader import open_reader
from shared.bus import Bus, open_bus
from shared.contracts import streams
from shared.service import PORTS, READY, end, new_app, watch

SETTINGS = web.AppKey("settings", Settings)
BUS = web.AppKey("bus", Bus)
DATABASE = web.AppKey("database", Database)


def build_app(settings: Settings) -> web.Application:
    app = new_app()
    app[SETTINGS] = settings
    app.cleanup_ctx.append(_bus)
    app.cleanup_ctx.append(_database)
    app.cleanup_ctx.append(_sinks)
    if not settings.clickhouse_url:
        app.cleanup_ctx.append(_facade)
    return app


async def _bus(app: web.Application) -> AsyncIterator[None]:
    async with open_bus(app[SETTINGS].bus, "analytics") as app[BUS]:
        yield


async def _database(app: web.Application) -> AsyncIterator[None]:
    async with open_database(app[SETTINGS]) as app[DATABASE]:
        await migrate(app[DATABASE])
        yield


async def _sinks(app: web.Application) -> AsyncIterator[None]:
    """Names first: rows are worth more with them. Ready once the ledger is in the table up to its end as of now."""
    bus, database = app[BUS], app[DATABASE]
    sinks: list[Sink[Any]] = [
        Sink(bus, database, streams.CONFIG, DIRECTORY, logs.directory_pieces, from_start=True),
        Sink(bus, database, streams.LEDGER, USAGE, logs.usage_pieces),
        Sink(bus, database, streams.REQUESTS, REQUESTS, logs.request_pieces),
    ]
    tasks = []
    for sink in sinks:
        await sink.begin()
        tasks.append(asyncio.create_task(sink.run(), name=f"sink {sink.table}"))
        watch(app, tasks[-1])
    ledger = sinks[1]
    app[READY] = lambda: bus.connected and not any(sink.failing for sink in sinks)
    await _caught_up(ledger, tasks[1])
    yield
    await end(*tasks)


async def _caught_up(sink: Sink[Any], task: "asyncio.Task[None]") -> None:
    """Raises what ended the sink meanwhile: nothing else would, before the service has started."""
    waiting = asyncio.create_task(sink.caught_up.wait())
    await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if task.done():
        task.result()


async def _facade(app: web.Application) -> AsyncIterator[None]:
    settings = app[SETTINGS]
    async with open_reader(settings) as reader:
        runner = web.AppRunner(facade(reader), access_log=None, shutdown_timeout=2)
        await runner.setup()
        await web.TCPSite(runner, settings.facade_host, settings.facade_port).start()
        app[PORTS]["clickhouse"] = runner.addresses[0][1]
        yield
        await runner.cleanup()
