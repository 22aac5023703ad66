"""The one place where the objects of telemetry are made and joined."""

import asyncio
import logging
from collections.abc import AsyncIterator

from aiohttp import web

from services.telemetry.handlers import Converter, Delivery, Reader
from services.telemetry.settings import Settings, Signals
from services.telemetry.stores.metering import Metering
from services.telemetry.stores.receiver import OtlpReceiver
from services.telemetry.stores.tracing import Tracing, resource
from shared import clock
from shared.bus import Bus, open_bus
from shared.bus.config import ConfigFollower
from shared.contracts.streams import PRICED, REQUESTS
from shared.service import READY, end, new_app, watch

SETTINGS = web.AppKey("settings", Settings)
SIGNALS = web.AppKey("signals", Signals)
BUS = web.AppKey("bus", Bus)
CONFIG = web.AppKey("config", ConfigFollower)
METERING: web.AppKey[Metering | None] = web.AppKey("metering")
RECEIVER: web.AppKey[OtlpReceiver] = web.AppKey("receiver")


def build_app(settings: Settings, signals: Signals) -> web.Application:
    app = new_app()
    app[SETTINGS], app[SIGNALS] = settings, signals
    app.cleanup_ctx.append(_bus)
    app.cleanup_ctx.append(_config)
    app.cleanup_ctx.append(_receiver)
    app.cleanup_ctx.append(_readers)
    return app


async def _bus(app: web.Application) -> AsyncIterator[None]:
    async with open_bus(app[SETTINGS].bus, "telemetry") as app[BUS]:
        yield


async def _config(app: web.Application) -> AsyncIterator[None]:
    """Where providers answer."""
    app[CONFIG] = ConfigFollower(app[BUS])
    task = asyncio.create_task(app[CONFIG].run(), name="config")
    watch(app, task)
    await app[CONFIG].caught_up()
    yield
    await end(task)


async def _receiver(app: web.Application) -> AsyncIterator[None]:
    """After the start the SDK has nothing to say that our metrics and one line of the log do not."""
    signals = app[SIGNALS]
    app[RECEIVER] = OtlpReceiver(signals.traces or "http/protobuf")
    app[METERING] = Metering(signals.metrics, resource()) if signals.metrics else None
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    yield
    app[RECEIVER].close()
    if metering := app[METERING]:
        await asyncio.to_thread(metering.close)


async def _readers(app: web.Application) -> AsyncIterator[None]:
    bus, settings = app[BUS], app[SETTINGS]
    tracing = Tracing(resource()) if app[SIGNALS].traces else None
    converter, delivery = Converter(app[CONFIG], app[METERING]), Delivery(app[RECEIVER], settings, clock.now)
    readers = [
        Reader(bus, REQUESTS, converter.request, tracing, delivery, settings),
        Reader(bus, PRICED, converter.attempt, tracing, delivery, settings),
    ]
    tasks = []
    for reader in readers:
        await reader.begin()
        tasks += [asyncio.create_task(work, name="reader") for work in reader.works()]
    for task in tasks:
        watch(app, task)
    app[READY] = lambda: bus.connected
    yield
    await end(*tasks)
    for reader in readers:
        await reader.keep()
