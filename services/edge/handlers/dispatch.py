"""From a complete request to the part that answers it (`client.Handler`)."""

import asyncio

import structlog
from ulid import ULID

from services.edge.core import headers, operations, refusals
from services.edge.core.formats import FORMATS
from services.edge.core.lifecycle import Verdict
from services.edge.core.operations import Match
from services.edge.core.refusals import Reason, Refusal
from services.edge.handlers import report
from services.edge.handlers.exchange import Exchange, new_context, refuse
from services.edge.handlers.free import Free
from services.edge.handlers.request import Request
from services.edge.handlers.responder import Responder
from services.edge.handlers.wiring import Wiring
from shared.errors import Rejected

log = structlog.get_logger()

REASONS: dict[int, Reason] = {413: "too_large", 408: "timeout", 503: "unavailable"}


class Dispatcher:
    """One task per request that has to wait for something; all others are answered at once."""

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._tasks: set[asyncio.Task[None]] = set()

    def serve(self, request: Request, responder: Responder) -> None:
        index = headers.index(request.head.headers)
        match = operations.resolve(request.head.method, request.head.path, index)
        if match.operation == "probe":
            responder.send(200, [(b"request-id", f"req_{ULID()}".encode())], b"")
        elif match.handling == "governed":
            self._start(Exchange(self._wiring, request, index, match, responder), responder)
        elif match.handling == "denied":
            self._deny(request, match, responder)
        else:
            self._start(Free(self._wiring, request, index, match, responder), responder)

    def refuse(self, error: Rejected, responder: Responder) -> None:
        """Bytes that never became a request: answered in the default format, and not recorded (there is nobody)."""
        refusal = Refusal(
            reason=REASONS.get(error.status, "invalid"),
            code=error.code,
            message=error.message,
            retry_after_s=1 if error.status == 503 else 0,
        )
        request_id = f"req_{ULID()}"
        answer = FORMATS["anthropic"].render(refusal, request_id)
        status = error.status if error.status == 431 else answer.status
        responder.send(status, answer.headers, answer.body)
        log.info("edge.request_malformed", request_id=request_id, status=status, reason=error.message)

    def _deny(self, request: Request, match: Match, responder: Responder) -> None:
        context = new_context(self._wiring, match)
        refusal = refusals.not_found(request.head.method, request.head.path)
        refuse(responder, context, refusal)
        verdict = Verdict(
            verdict="rejected",
            closed_at=self._wiring.clock(),
            status=404,
            reason=refusal.code,
            error_type="not_found_error",
            message=refusal.message,
            outcome="refused",
            bytes_in=len(request.body),
            bytes_out=responder.bytes_out,
        )
        report.completed(self._wiring.spool, context, verdict)

    def _start(self, answering: Exchange | Free, responder: Responder) -> None:
        task = self._wiring.loop.create_task(answering.run())
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._ended(done, answering, responder))

    def _ended(self, task: "asyncio.Task[None]", answering: Exchange | Free, responder: Responder) -> None:
        """A task that failed is a bug of ours: the client is told that much, and nobody else is harmed."""
        self._tasks.discard(task)
        if answering.entered:
            self._wiring.crowd.leave(answering.entered)
        if task.cancelled() or (error := task.exception()) is None:
            return
        log.error("edge.request_failed", exc_info=error)
        if responder.started:
            responder.abort()
            return
        refusal = Refusal(reason="unavailable", code="internal", message="An error of the gateway.", retry_after_s=1)
        answer = FORMATS["anthropic"].render(refusal, f"req_{ULID()}")
        responder.send(500, answer.headers, answer.body)

    async def finished(self) -> None:
        """Return when every request that was begun is recorded."""
        if self._tasks:
            await asyncio.wait(self._tasks)
