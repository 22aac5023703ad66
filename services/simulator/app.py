"""Where the simulator is put together."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web

from services.simulator import stores
from services.simulator.core.answer import Pace
from services.simulator.handlers import free
from services.simulator.handlers.messages import Messages
from services.simulator.handlers.wire import STOPPING
from services.simulator.settings import Settings
from shared.service import new_app

BILL = web.AppKey("bill", stores.BillFile)


def build_app(settings: Settings) -> web.Application:
    """Raises OSError when the bill cannot be written."""
    app = new_app()
    path = Path(settings.bill_file) if settings.bill_file else Path(settings.data_dir) / "bill.jsonl"
    app[BILL] = stores.BillFile(path)
    messages = Messages(stores.price_book(), app[BILL], Pace(ttft_ms=settings.ttft_ms, chunk_ms=settings.chunk_ms))
    pages = free.BillPages(app[BILL])
    route = app.router
    route.add_post("/v1/messages", messages.create)
    route.add_post("/v1/messages/count_tokens", free.count_tokens)
    route.add_get("/v1/models", free.models)
    route.add_get("/v1/models/{id}", free.model)
    route.add_get("/bill", pages.totals)
    route.add_get("/bill/lines", pages.lines)
    route.add_get("/", free.hello)
    route.add_get("/api/hello", free.hello)
    route.add_route("*", "/{path:.*}", free.unknown)
    app[STOPPING] = asyncio.Event()
    app.on_shutdown.append(_stop)
    app.cleanup_ctx.append(_bill)
    return app


async def _stop(app: web.Application) -> None:
    app[STOPPING].set()


async def _bill(app: web.Application) -> AsyncIterator[None]:
    yield
    app[BILL].close()
