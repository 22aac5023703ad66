"""A POST sent twice with one Idempotency-Key is done once, and answered the same."""

import asyncio
import hashlib
from collections import OrderedDict

import msgspec
from aiohttp import web

from services.console.core.problem import Invalid
from services.console.handlers.context import Handler, caller, now
from shared.contracts.message import Micros

REMEMBERED = 1_000
KEPT: Micros = 24 * 3_600_000_000


class Answered(msgspec.Struct, frozen=True):
    """request: digest of the body it was given for. body: what was answered, a secret shown once included."""

    at: Micros
    request: bytes
    status: int
    body: bytes


class Idempotency:
    """In memory: after a restart, ids and fixed slugs still keep a POST from making a thing twice."""

    def __init__(self) -> None:
        self._answers: OrderedDict[tuple[str, str, str], Answered] = OrderedDict()
        self._lock = asyncio.Lock()

    async def once(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not (given := request.headers.get("Idempotency-Key", "")):
            return await handler(request)
        name = (caller(request).actor, request.path_qs, given)
        digest = hashlib.sha256(await request.read()).digest()
        async with self._lock:  # the second of two at the same time waits for the first one's answer
            if (before := self._answers.get(name)) and before.at > now(request) - KEPT:
                if before.request != digest:
                    raise Invalid("Idempotency-Key", "it was used with another body", "idempotency_key_reused", 409)
                return _again(before)
            answer = await handler(request)
            if isinstance(answer, web.Response) and isinstance(answer.body, bytes) and answer.status < 300:
                self._keep(name, Answered(now(request), digest, answer.status, answer.body))
            return answer

    def _keep(self, name: tuple[str, str, str], answered: Answered) -> None:
        self._answers[name] = answered
        while len(self._answers) > REMEMBERED:
            self._answers.popitem(last=False)


IDEMPOTENCY = web.AppKey("idempotency", Idempotency)


def _again(before: Answered) -> web.Response:
    headers = {"Idempotent-Replayed": "true"}
    return web.Response(body=before.body, status=before.status, content_type="application/json", headers=headers)


def idempotent(handler: Handler) -> Handler:
    async def once(request: web.Request) -> web.StreamResponse:
        return await request.app[IDEMPOTENCY].once(request, handler)

    return once
