"""Everything that costs nothing: token counts, models, probes, and the bill itself."""

import msgspec
from aiohttp import web

from services.simulator.core import ask as asks
from services.simulator.core import catalogue, errors, tokens
from services.simulator.core.ask import Malformed
from services.simulator.core.directives import UnknownDirective
from services.simulator.handlers import wire
from services.simulator.stores import BillFile

MOST_LINES = 1_000
MOST_MODELS = 1_000


def _refuse(status: int, message: str = "") -> web.Response:
    request_id = wire.new_request_id()
    return wire.refused(errors.refusal(status, message, request_id), request_id)


def _answer(value: object) -> web.Response:
    headers = wire.headers(wire.new_request_id()) | {"content-type": "application/json"}
    return web.Response(body=msgspec.json.encode(value), headers=headers)


async def count_tokens(request: web.Request) -> web.Response:
    """POST /v1/messages/count_tokens. Its errors can be asked for by directive, too."""
    if not wire.credential(request.headers):
        return _refuse(401)
    try:
        ask = asks.read(await wire.body(request), request.headers, needs_max_tokens=False)
    except wire.TooLarge:
        return _refuse(413)
    except (Malformed, UnknownDirective) as error:
        return _refuse(400, str(error))
    request_id = wire.new_request_id()
    if refusal := errors.wanted(ask.wish, request_id):
        return wire.refused(refusal, request_id)
    named = (ask.wish.input_tokens, ask.wish.cache_read, ask.wish.cache_5m, ask.wish.cache_1h)
    told = sum(count or 0 for count in named) if any(count is not None for count in named) else None
    return _answer({"input_tokens": tokens.total(tokens.prefixes(ask)) if told is None else told})


async def models(request: web.Request) -> web.Response:
    """GET /v1/models"""
    if not wire.credential(request.headers):
        return _refuse(401)
    limit = request.query.get("limit", "20")
    if not limit.isdigit() or not 1 <= int(limit) <= MOST_MODELS:
        return _refuse(400, f"limit: must be a number from 1 to {MOST_MODELS}")
    return _answer(catalogue.models(int(limit), request.query.get("after_id", "")))


async def model(request: web.Request) -> web.Response:
    """GET /v1/models/{id}"""
    if not wire.credential(request.headers):
        return _refuse(401)
    found = catalogue.model(request.match_info["id"])
    return _answer(found) if found else _refuse(404, f"model: {request.match_info['id']}")


async def hello(request: web.Request) -> web.Response:
    """HEAD / and /api/hello: a client warms its connection."""
    return web.Response(headers={"request-id": wire.new_request_id()})


async def unknown(request: web.Request) -> web.Response:
    """Any other path."""
    return _refuse(404, f"{request.method} {request.path} is not served here")


class BillPages:
    """The bill, to be read."""

    def __init__(self, bill_file: BillFile) -> None:
        self._bill = bill_file

    async def totals(self, request: web.Request) -> web.Response:
        """GET /bill"""
        return _answer(self._bill.totals)

    async def lines(self, request: web.Request) -> web.Response:
        """GET /bill/lines?after=N&limit=M: lines N + 1 and on, and the N for the next page."""
        after, limit = request.query.get("after", "0"), request.query.get("limit", str(MOST_LINES))
        if not after.isdigit() or not limit.isdigit():
            return _refuse(400, "after, limit: must be whole numbers")
        items = self._bill.lines(int(after), min(int(limit), MOST_LINES))
        return _answer({"items": items, "next": int(after) + len(items)})
