"""`?wait=SECONDS` on whatever changes the organisation: answer when the change is in force, and tell who lags."""

import time

import msgspec
from aiohttp import web

from services.console.core.problem import Invalid
from services.console.handlers.context import IN_FORCE, WAIT, Handler, directory

MOST_SECONDS = 10.0


def acknowledged(handler: Handler) -> Handler:
    """The handler, and then the wait; a change is made whether all acknowledge it in time or not."""

    async def waited(request: web.Request) -> web.StreamResponse:
        seconds, began = _seconds(request), time.monotonic()
        answer = await handler(request)
        if not seconds or not isinstance(answer, web.Response) or not isinstance(answer.body, bytes):
            return answer
        if answer.status < 300:
            found = await request.app[IN_FORCE].wait(directory(request).config_rev, seconds, began)
            answer.body = msgspec.json.encode(msgspec.json.decode(answer.body) | {"in_force": found})
        return answer

    return waited


def _seconds(request: web.Request) -> float:
    given = request.query.get(WAIT, "0").removesuffix("s")
    try:
        seconds = float(given)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MOST_SECONDS:
        raise Invalid(WAIT, f"give seconds, at most {MOST_SECONDS:.0f}, like 1 or 0.5s")
    return seconds
