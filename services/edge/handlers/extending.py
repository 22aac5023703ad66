"""Asks the owner for more while a stream flows, and holds the stream at the end of its hold until there is an answer."""

import asyncio
from collections.abc import Callable

import structlog

from services.edge.core.extension import Course, Question
from services.edge.core.meter import Meter
from services.edge.handlers.relay import Relay
from services.edge.stores.lender import Lender
from shared import telemetry
from shared.contracts.budget import Extend, Granted

log = structlog.get_logger()

_answers = {answer: telemetry.edge_extensions.labels(answer) for answer in ("granted", "denied")}


class Extending:
    """Of one attempt. raised: called with each grant, before the stream makes use of it."""

    def __init__(self, lender: Lender, course: Course, rid: str, raised: Callable[[Granted], None]) -> None:
        self.course = course
        self._lender = lender
        self._rid = rid
        self._raised = raised
        self._asking: asyncio.Task[None] | None = None  # kept: the loop holds tasks but weakly
        self._patience: asyncio.TimerHandle | None = None

    def reached(self, relay: Relay, meter: Meter) -> None:
        """The output has come to the course's line."""
        if self._patience:
            return  # the last of what was read before the stream was held
        self._ask_if_due(relay, meter)
        if not self.course.at_end(meter.output_tokens):
            return
        if self.course.open:
            loop = asyncio.get_running_loop()
            relay.wait()
            grace = self.course.grace_seconds(meter.output_tokens, loop.time() - relay.first_byte_at)
            self._patience = loop.call_later(grace, relay.cut)
        else:
            relay.cut()

    def close(self) -> None:
        """The stream is over: nothing more is asked for."""
        if self._asking:
            self._asking.cancel()
        if self._patience:
            self._patience.cancel()

    def _ask_if_due(self, relay: Relay, meter: Meter) -> None:
        if question := self.course.ask(meter.output_tokens):
            self._asking = asyncio.create_task(self._ask(relay, meter, question))

    async def _ask(self, relay: Relay, meter: Meter, question: Question) -> None:
        answer = await self._lender.extend(Extend(rid=self._rid, n=question.n, output_tokens=question.output_tokens))
        granted = isinstance(answer, Granted)
        _answers["granted" if granted else "denied"].inc()
        log.debug("edge.extension_answered", rid=self._rid, n=question.n, asked=question.output_tokens, granted=granted)
        if isinstance(answer, Granted):
            self._raised(answer)
        self.course.answered(answer, meter.output_tokens)
        if self._patience:
            self._patience.cancel()
            self._patience = None
            self.reached(relay, meter)  # what was read on the way here may have passed this end of the hold, too
            if not self._patience and not relay.done.done():
                relay.go_on()
