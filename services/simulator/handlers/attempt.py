"""One request, from its arrival to its one line in the bill."""

from aiohttp import web

from services.simulator.core import bill, usage
from services.simulator.core.answer import Answer
from services.simulator.core.ask import Ask
from services.simulator.core.bill import BillLine, Cost
from services.simulator.core.bursts import Sent
from services.simulator.core.faults import Outcome
from services.simulator.handlers import wire
from services.simulator.stores import BillFile
from shared import clock, telemetry
from shared.rates import Book

FREE = Cost(nano_usd=0, lines=(), unpriced=False)


class Attempt:
    """What is known of a request so far."""

    def __init__(self, request: web.Request, book: Book, bill_file: BillFile) -> None:
        self.at = clock.now()
        self.request_id = wire.new_request_id()
        self.credential = wire.credential(request.headers)
        self.session = request.headers.get("x-claude-code-session-id", "")
        self.ask: Ask | None = None
        self.answer: Answer | None = None
        self.sent = Sent()
        self._agent = request.headers.get("x-claude-code-agent-id", "")
        self._book = book
        self._bill = bill_file
        self._settled = False

    async def interrupted(self, request: web.Request) -> web.StreamResponse:
        """The answer ends here, because the client has gone or we are being stopped. What is returned reaches nobody."""
        status = 200 if self.sent.chunks else 0
        if wire.gone(request):
            self.settle(status, "client_gone")
        else:
            self.settle(status, "reset")
            await wire.reset(request)
        return web.Response()

    def settle(self, status: int, outcome: Outcome, error_type: str = "") -> None:
        """Write the line; only the first call counts.

        A broken answer is billed from its first event on. A client that hangs up has had its prompt read already.
        """
        if self._settled:
            return
        self._settled = True
        telemetry.simulator_requests.labels(status=str(status)).inc()
        account = None
        if self.answer and outcome != "refused" and (self.sent.begun or outcome == "client_gone"):
            account = usage.stopped(self.answer.message.account, self.sent.made, self.sent.searches)
            if outcome == "complete":
                account = self.answer.message.account
        cost = bill.cost(account, self._book, self.at) if account else FREE
        self._bill.append(
            BillLine(
                at=clock.rfc3339(self.at),
                request_id=self.request_id,
                session_id=self.session,
                agent_id=self._agent,
                body_digest=self.ask.messages_digest if self.ask else "",
                body_sha256=self.ask.body_digest if self.ask else "",
                model=self.ask.body.model if self.ask else "",
                response_model=self.answer.message.account.model if self.answer else "",
                stream=self.ask.body.stream if self.ask else False,
                status=status,
                outcome=outcome,
                usage=usage.final(account) if account else {},
                lines=cost.lines,
                cost_nano_usd=cost.nano_usd,
                sent_chunks=self.sent.chunks,
                generated_output_tokens=account.whole.output_tokens if account else 0,
                error_type=error_type,
                unpriced=cost.unpriced,
            )
        )
