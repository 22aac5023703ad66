"""One attempt that was admitted: sent to the provider, relayed, metered, and closed with exactly one record."""

import asyncio

import msgspec
import structlog

from services.edge.core import denials, lifecycle, refusals, usage
from services.edge.core import headers as wire
from services.edge.core.extension import course_of
from services.edge.core.formats import FORMATS
from services.edge.core.journal import Sent, Started
from services.edge.core.lifecycle import Context, Ending
from services.edge.core.meter import Meter, meter_for
from services.edge.core.policy import Attempt
from services.edge.core.refusals import Refusal
from services.edge.core.usage import Asked, Usage
from services.edge.handlers import report
from services.edge.handlers.extending import Extending
from services.edge.handlers.relay import Relay, Stop
from services.edge.handlers.request import Request
from services.edge.handlers.responder import Headers, Responder
from services.edge.handlers.wiring import Wiring
from services.edge.stores.spool import SpoolFailed
from services.edge.stores.upstream import Head, Origin, UpstreamConnection, origin_of
from shared import telemetry
from shared.contracts.budget import Cut, Granted
from shared.errors import Unavailable

log = structlog.get_logger()

STALE_SECONDS = (
    0.25  # a close that crossed our request arrives within a round trip; later the provider was at work on it
)


class Admitted(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt that may be sent. granted: None when no owner answered and no hard budget is on the path."""

    attempt: Attempt
    started: Started
    granted: Granted | None

    @property
    def rid(self) -> str:
        return self.started.usage.rid


class Closed(msgspec.Struct, frozen=True, kw_only=True):
    """How the attempt ended. refusal: what the client must still be told, where nothing has gone out to it.

    stale: upstream closed an idle connection just as we used it, so it has read nothing as far as we can know.
    """

    outcome: str
    status: int = 0
    error_type: str = ""
    first_byte_at: int = 0
    refusal: Refusal | None = None
    stale: bool = False


def origin(base_url: str) -> Origin:
    """Raises Unavailable("provider") where the organisation's base URL is none."""
    found = _origins.get(base_url)
    if found is None:
        try:
            found = origin_of(base_url)
        except ValueError:
            raise Unavailable("provider") from None
        if len(_origins) < 1000:
            _origins[base_url] = found
    return found


_origins: dict[str, Origin] = {}


def request_head(at: Origin, method: str, path: str, headers: Headers, length: int) -> bytes:
    """The request line and headers as they go upstream; framed anew, by length alone."""
    lines = [b"%b %b%b HTTP/1.1" % (method.encode(), at.prefix, path.encode()), b"Host: " + at.authority]
    lines += [b"%b: %b" % header for header in headers]
    if length or method != "GET":
        lines.append(b"Content-Length: %d" % length)
    return b"\r\n".join([*lines, b"", b""])


def wire_body(body: bytes, admitted: Admitted, context: Context) -> bytes:
    """The body as received; where a rule names another model, its bytes alone are exchanged."""
    facts = context.facts
    assert facts is not None
    if admitted.attempt.wire_model == facts.model:
        return body
    start, end = facts.model_span
    return body[:start] + msgspec.json.encode(admitted.attempt.wire_model) + body[end:]


class Sending:
    """Carries one admitted attempt to its end; `relay` hears the client while it runs."""

    def __init__(
        self,
        wiring: Wiring,
        context: Context,
        request: Request,
        upstream_path: str,
        responder: Responder,
        admitted: Admitted,
    ) -> None:
        self._upstream_path = upstream_path
        self._wiring = wiring
        self._context = context
        self._request = request
        self._responder = responder
        self._admitted = admitted
        self._held: Sent | None = None
        self._asked: Asked | None = None
        self._trued_up: asyncio.Task[None] | None = None  # kept: the loop holds tasks but weakly
        assert context.facts is not None
        course = course_of(admitted.granted, context.facts)
        self._extending = Extending(wiring.lender, course, admitted.rid, self._raised) if course else None
        self._stale = self._seen = False
        self.relay: Relay | None = None

    async def send(self, connection: UpstreamConnection, credential: wire.Header) -> Closed:
        """Send on this connection, relay the answer, close the attempt.

        Raises SpoolFailed when sending cannot be recorded; nothing is sent then.
        """
        wiring, admitted = self._wiring, self._admitted
        self._held = lifecycle.sent(admitted.started, admitted.granted, wiring.clock())
        self._asked = lifecycle.asked(self._context, admitted.attempt, self._held)
        wiring.spool.sent(self._held)
        telemetry.edge_live_attempts.inc()
        try:
            why = await self._exchange(connection, credential)
            self._stop_asking()
            return await self._close(why)
        finally:
            self._stop_asking()
            self._extending = None
            telemetry.edge_live_attempts.dec()
            if self.relay:
                self.relay.close()

    def _stop_asking(self) -> None:
        """The stream needs no more output; the close releases what it holds."""
        if self._extending:
            self._extending.close()

    async def _exchange(self, connection: UpstreamConnection, credential: wire.Header) -> Stop:
        at = origin(self._admitted.attempt.base_url)
        body = wire_body(self._request.body, self._admitted, self._context)
        headers = wire.request_headers_for_upstream(self._request.head.headers, credential)
        head = request_head(at, "POST", self._upstream_path, headers, len(body))
        loop, reused = self._wiring.loop, connection.requests > 0
        unread_until = loop.time() + STALE_SECONDS
        why = await self._relay(connection, head, body)
        self._stale = (
            why is Stop.UNANSWERED and reused and not connection.answered and loop.time() < unread_until
        ) and not self._responder.gone
        return why

    async def _relay(self, connection: UpstreamConnection, head: bytes, body: bytes) -> Stop:
        if self.relay:
            self.relay.close()
        said, course = FORMATS[self._context.client_format], self._extending.course if self._extending else None
        relay = Relay(self._responder, said, self, self._wiring.settings, course)
        self.relay = relay
        relay.attach(connection)
        if self._responder.gone:
            relay.client_gone()
        else:
            connection.send(head, body, relay)
        return await relay.done

    # What the relay asks (`relay.Watch`).

    def answering(self, head: Head) -> tuple[Meter, bool]:
        assert self._asked is not None
        told = wire.index(head.headers)
        encoded = told.get(b"content-encoding", b"identity").lower() != b"identity"
        kind = (
            b"" if encoded else told.get(b"content-type", b"")
        )  # nobody asked for it: no events, pings or ends in there
        meter = meter_for(kind, head.status, self._asked)
        return meter, head.status == 200 and kind.lower().startswith(b"text/event-stream")

    def headers(self, head: Head) -> Headers:
        context, added = self._context, Headers()
        if self._admitted.granted and head.status == 200:
            added += wire.budget_headers(self._admitted.granted.standings)
        if self.relay and self.relay.streaming:
            added.append((b"x-accel-buffering", b"no"))
        added.append((b"x-sluicegate-request-id", context.request_id.encode()))
        return wire.response_headers_for_client(head.headers, context.request_id, added)

    def seen(self, meter: Meter) -> None:
        """Keeps what a successor of this process would close with; from a second on it gives back what input held too much.

        A stream of less than a second, or one that needs no more than it has, is closed before that would help anybody.
        """
        self._wiring.spool.progress(self._admitted.rid, meter.usage())
        if self._seen:
            self._give_back(meter)
        if self._extending:
            if not self._seen:
                self._extending.course.counted(meter.input_tokens)
            self._extending.course.flowed(meter.output_tokens, self._wiring.loop.time(), meter.hides)
        self._seen = True

    def reached(self, meter: Meter) -> None:
        if self._extending and self.relay:
            self._give_back(meter)  # before more is asked for: it may be what the budget lacks
            self._extending.reached(self.relay, meter)

    def _give_back(self, meter: Meter) -> None:
        if self._trued_up or not self._admitted.granted or not meter.input_tokens:
            return
        telling = self._wiring.lender.true_up(self._admitted.rid, meter.input_tokens, 0)
        self._trued_up = self._wiring.loop.create_task(telling)

    def _raised(self, more: Granted) -> None:
        """Asked for, and granted on top."""
        assert self._held is not None
        self._held = lifecycle.raised(self._held, more)
        self._wiring.spool.raised(self._held)

    # The end.

    async def _close(self, why: Stop) -> Closed:
        assert self.relay is not None and self._held is not None
        match why:
            case Stop.ENDED:
                return await self._ended(self.relay)
            case Stop.CUT:
                return await self._cut(self.relay)
            case Stop.CLIENT_GONE:
                return await self._record("client_gone")
        return await self._broken(self.relay)

    async def _ended(self, relay: Relay) -> Closed:
        assert relay.meter is not None and relay.head_seen is not None
        good = 200 <= relay.head_seen.status < 300
        error_type = "" if good and not relay.streaming else relay.meter.error_type
        closed = await self._record("ok" if good and not error_type else "upstream_error", error_type)
        if refusals.is_redirect(relay.head_seen.status) and not self._responder.started:
            refusal = refusals.upstream_redirected(self._admitted.attempt.provider.name)
            return msgspec.structs.replace(closed, refusal=refusal)
        relay.release()
        return closed

    async def _broken(self, relay: Relay) -> Closed:
        closed = await self._record("upstream_broken", "api_error")
        message = "The provider broke off the answer."
        if relay.break_off("api_error", message, self._context.request_id):
            return closed
        refusal = Refusal(reason="unavailable", code="upstream_broken", message=message, retry_after_s=1)
        return msgspec.structs.replace(closed, refusal=refusal, stale=self._stale)

    async def _cut(self, relay: Relay) -> Closed:
        relay.hang_up()
        assert self._held is not None and self._admitted.granted is not None and self._extending is not None
        principal, directory = self._held.usage.principal, self._wiring.directory
        refused_by = self._extending.course.refused_by
        budget_id = refused_by or denials.cutting_budget(self._admitted.granted, principal, directory)
        await self._tell_cut(budget_id)
        closed = await self._record("cut", "billing_error")
        message = denials.cut_off(budget_id, principal, directory)
        relay.break_off("billing_error", message, self._context.request_id)
        return closed

    async def _tell_cut(self, budget_id: str) -> None:
        """The owner refuses the client's re-send from now on; if it does not answer, the stream ends all the same."""
        facts, held = self._context.facts, self._held
        assert facts is not None and held is not None
        cut = Cut(
            rid=self._admitted.rid,
            budget_id=budget_id,
            principal=held.usage.principal,
            session=facts.session,
            agent=facts.agent,
            body_digest=facts.body_digest,
        )
        self._wiring.lender.drop(held.usage.principal.key)
        if not await self._wiring.lender.cut(cut):
            log.warning("edge.cut_untold", rid=self._admitted.rid)

    async def _record(self, outcome: str, error_type: str = "") -> Closed:
        """Write the end durably. A spool that fails now keeps nobody's answer back: the record goes out from memory."""
        assert self.relay is not None and self._held is not None
        relay, now = self.relay, self._wiring.clock()
        head = relay.head_seen
        first = self._first_byte_at(now)
        ending = Ending(
            outcome=outcome,
            closed_at=now,
            status=head.status if head else 0,
            error_type=error_type,
            first_byte_at=first,
            upstream_request_id=_request_id(head),
        )
        report.attempted(self._admitted.attempt.provider.name, outcome)
        record = lifecycle.settled(self._held, self._used(now), ending)
        try:
            await self._wiring.spool.end(record)
        except SpoolFailed as error:
            log.error("edge.end_not_durable", rid=self._admitted.rid, reason=str(error))
        return Closed(outcome=outcome, status=ending.status, error_type=error_type, first_byte_at=first)

    def _used(self, now: int) -> Usage:
        """An error status costs nothing; what never answered, what `lifecycle.unanswered` says."""
        assert self.relay is not None and self._held is not None and self._asked is not None
        relay = self.relay
        if relay.meter is None or relay.head_seen is None:
            hung_up = relay.done.result() is not Stop.UNANSWERED
            return lifecycle.unanswered(self._held, self._asked, hung_up, now)
        return relay.meter.usage() if 200 <= relay.head_seen.status < 300 else usage.NOTHING

    def _first_byte_at(self, now: int) -> int:
        """In the clock of the records; the relay measures in the loop's."""
        assert self.relay is not None
        if not self.relay.first_byte_at:
            return 0
        return now - int((self._wiring.loop.time() - self.relay.first_byte_at) * 1_000_000)


def _request_id(head: Head | None) -> str:
    if head is None:
        return ""
    return next((value.decode("latin-1") for name, value in head.headers if name.lower() == b"request-id"), "")
