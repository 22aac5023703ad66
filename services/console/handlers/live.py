"""Server-sent events for the page."""

import asyncio

from aiohttp import web

from services.console.handlers.context import FEED

KEEP_ALIVE_SECONDS = 15.0


async def live(request: web.Request) -> web.StreamResponse:
    """Events: `request` (a RequestItem, again when its price is known), `balances` (Budgets), `spend`, `trouble`."""
    feed = request.app[FEED]
    page = feed.open()
    stream = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
    try:
        await stream.prepare(request)
        await stream.write(b"retry: 1000\n\n")
        while True:
            try:
                async with asyncio.timeout(KEEP_ALIVE_SECONDS):
                    told = await page.events.get()
            except TimeoutError:
                told = b": still here\n\n"
            if told is None:
                return stream
            await stream.write(told)
    except ConnectionError:
        return stream  # the page was closed
    finally:
        feed.close(page)
