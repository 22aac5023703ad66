"""A receiver of telemetry on loopback."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web


@asynccontextmanager
async def sink() -> AsyncIterator[tuple[str, list[bytes]]]:
    """Where telemetry may be sent, and what came."""
    bodies: list[bytes] = []

    async def take(asked: web.Request) -> web.Response:
        bodies.append(await asked.read())
        return web.json_response({})

    app = web.Application()
    app.router.add_post("/{path:.*}", take)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", bodies
    finally:
        await runner.cleanup()
