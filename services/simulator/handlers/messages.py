"""POST /v1/messages: understand, decide, keep the bill, send."""

import asyncio

import msgspec
from aiohttp import web

from services.simulator.core import ask as asks
from services.simulator.core import bill, errors, frames, tokens
from services.simulator.core.answer import Answer, Pace, answer
from services.simulator.core.ask import Ask, Malformed
from services.simulator.core.bursts import Sent, bursts
from services.simulator.core.directives import NONE, UnknownDirective
from services.simulator.core.errors import Refusal
from services.simulator.handlers import wire
from services.simulator.handlers.attempt import Attempt
from services.simulator.stores import BillFile, PromptCache, Repeats
from shared.rates import Book

JSON = {"content-type": "application/json"}
SSE = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}


class Messages:
    """Everything that answers need, joined once."""

    def __init__(self, book: Book, bill_file: BillFile, pace: Pace) -> None:
        self._book = book
        self._bill = bill_file
        self._pace = pace
        self._cache = PromptCache()
        self._repeats = Repeats()

    async def create(self, request: web.Request) -> web.StreamResponse:
        """One attempt: exactly one line of the bill, however it ends."""
        attempt = Attempt(request, self._book, self._bill)
        try:
            ask = await self._understand(request, attempt)
            if isinstance(ask, Refusal):
                return _refuse(attempt, ask)
            attempt.ask, reply = ask, self._decide(attempt, ask)
            if not await wire.silence(request, round(ask.wish.late_headers * 1_000)):
                return await attempt.interrupted(request)
            if isinstance(reply, Refusal):
                return _refuse(attempt, reply)
            return await (_stream if ask.body.stream else _whole)(request, attempt, ask, reply)
        except ConnectionError:
            attempt.settle(0, "client_gone")  # before its body was here
            return web.Response()
        except asyncio.CancelledError:  # only where the server is told to cancel for a client that has gone
            attempt.settle(200 if attempt.sent.chunks else 0, "client_gone")
            raise

    async def _understand(self, request: web.Request, attempt: Attempt) -> Ask | Refusal:
        """The request, or why it is none."""
        if not attempt.credential:
            return errors.refusal(401, "", attempt.request_id)
        try:
            ask = asks.read(await wire.body(request), request.headers)
        except wire.TooLarge:
            return errors.refusal(413, "", attempt.request_id)
        except (Malformed, UnknownDirective) as error:
            return errors.refusal(400, str(error), attempt.request_id)
        if ask.wish.times is not None and self._repeats.count(attempt.session, ask.messages_digest) > ask.wish.times:
            return msgspec.structs.replace(ask, wish=NONE)
        return ask

    def _decide(self, attempt: Attempt, ask: Ask) -> Answer | Refusal:
        """The whole answer, before its first byte; a good one leaves its prompt in the cache."""
        if refusal := errors.wanted(ask.wish, attempt.request_id):
            return refusal
        line = tokens.prefixes(ask)
        split = tokens.split(line, self._cache.known(attempt.credential, line, attempt.at))
        try:
            attempt.answer = answer(
                ask,
                split,
                attempt.request_id,
                lambda lines: bill.nano_usd(lines, self._book, attempt.at),
                lambda model: bill.sold_fast(self._book, model, attempt.at),
                self._pace,
            )
        except UnknownDirective as error:
            return errors.refusal(400, str(error), attempt.request_id)
        self._cache.keep(attempt.credential, split, attempt.at)
        return attempt.answer


async def _stream(request: web.Request, attempt: Attempt, ask: Ask, reply: Answer) -> web.StreamResponse:
    """Frames as they fall due; the bill is written before the last of them."""
    course = reply.course
    response = web.StreamResponse(headers=wire.headers(attempt.request_id) | SSE)
    if ask.wish.reset == "before_headers":
        attempt.settle(0, "reset")
        await wire.reset(request)
        return response
    try:
        await response.prepare(request)
        for burst in bursts(course.frames):
            if not await wire.silence(request, burst.wait_ms):
                return await attempt.interrupted(request)
            attempt.sent = attempt.sent.after(burst)
            if burst.last:
                attempt.settle(200, course.outcome)
            # The end of the body goes with the last events: one write for a whole answer that does not dawdle.
            ends = burst.last and course.outcome != "reset"
            await (response.write_eof if ends else response.write)(burst.data)
    except ConnectionError:
        attempt.settle(200, "client_gone")
        return response
    if course.outcome == "reset":
        attempt.settle(200, "reset")
        await wire.reset(request)
    return response


async def _whole(request: web.Request, attempt: Attempt, ask: Ask, reply: Answer) -> web.StreamResponse:
    """One JSON body, after as long as a stream would have taken. One that breaks was never an answer, and is free."""
    course = reply.course
    for burst in bursts(course.frames):
        if not await wire.silence(request, burst.wait_ms):
            return await attempt.interrupted(request)
        attempt.sent = attempt.sent.after(burst)
    if course.outcome == "reset":
        attempt.sent = Sent()
        attempt.settle(0, "reset")
        await wire.reset(request)
        return web.Response()
    if course.outcome == "error_event":
        kind = ask.wish.error_type or "overloaded_error"
        message = ask.wish.message
        return _refuse(attempt, errors.refusal(errors.STATUSES.get(kind, 500), message, attempt.request_id, kind))
    attempt.settle(200, "complete")
    return web.Response(body=frames.whole(reply.message), headers=wire.headers(attempt.request_id) | JSON)


def _refuse(attempt: Attempt, refusal: Refusal) -> web.Response:
    attempt.settle(refusal.status, "refused", error_type=refusal.error_type)
    return wire.refused(refusal, attempt.request_id)
