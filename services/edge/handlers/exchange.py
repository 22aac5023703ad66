"""The life of a governed request: door, facts, policy, then attempt after attempt until one could be sent."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
import structlog
from ulid import ULID

from services.edge.core import counting, denials, door, lifecycle, refusals
from services.edge.core.facts import Facts, read_facts
from services.edge.core.formats import FORMATS
from services.edge.core.headers import Header, Index
from services.edge.core.lifecycle import Context, Verdict
from services.edge.core.operations import Match
from services.edge.core.policy import Attempt
from services.edge.core.refusals import Refusal
from services.edge.core.repeats import Mark
from services.edge.handlers import report
from services.edge.handlers.attempt import Admitted, Closed, Sending, origin
from services.edge.handlers.counting import recount
from services.edge.handlers.request import Request
from services.edge.handlers.responder import Responder
from services.edge.handlers.wiring import Wiring
from services.edge.stores.credentials import Unresolved
from services.edge.stores.spool import SpoolFailed
from services.edge.stores.upstream import UpstreamConnection
from shared import telemetry
from shared.contracts.attribution import Principal
from shared.contracts.budget import Denied
from shared.directory import Directory
from shared.errors import Rejected, Unavailable

log = structlog.get_logger()

T = TypeVar("T")

THE_PROVIDERS_FAULT = frozenset(("upstream_error", "upstream_broken", "not_sent"))
"""How an admitted request ends that the client then tries again by itself."""


class ClientGone(Exception):
    """The client left while something was awaited for it."""


class Exchange:
    """One client request. `run` answers it in every case; only a client that is gone gets no answer."""

    def __init__(self, wiring: Wiring, request: Request, index: Index, match: Match, responder: Responder) -> None:
        self._wiring = wiring
        self._request = request
        self._index = index
        self._match = match
        self._responder = responder
        self._sending: Sending | None = None
        self._task: asyncio.Task[None] | None = None
        self._awaiting = False
        self._rids: list[str] = []
        self._reserve_us = -1
        self._repeat = False
        self._mark: Mark | None = None
        self._last: Admitted | None = None
        self._closed: Closed | None = None
        self._number = 0
        self.entered = ""  # the key that this request counts for, until it has ended
        self._context = new_context(wiring, match)
        responder.exchange = self

    # What the client's connection says (`responder.Exchange`).

    def client_gone(self) -> None:
        if self._sending and self._sending.relay:
            self._sending.relay.client_gone()
        elif self._awaiting and self._task:
            self._task.cancel()

    def client_slow(self) -> None:
        if self._sending and self._sending.relay:
            self._sending.relay.client_slow()

    def client_ready(self) -> None:
        if self._sending and self._sending.relay:
            self._sending.relay.client_ready()

    async def run(self) -> None:
        """The six steps of docs/design.md, "What a request goes through"."""
        self._task = asyncio.current_task()
        planned = self._plan()
        if isinstance(planned, Refusal):
            self._refuse(planned, "rejected")
            return
        try:
            refused = await self._attempts(planned)
        except ClientGone:
            self._complete(self._verdict("admitted" if self._closed else "unavailable", outcome="client_gone"))
            return
        if refused is not None:
            self._refuse(*refused)
        elif self._closed:
            self._complete(self._verdict("admitted", outcome=self._closed.outcome))

    def _plan(self) -> tuple[Attempt, ...] | Refusal:
        """Door and policy: decided in memory, without waiting."""
        directory, now = self._wiring.directory, self._context.received_at
        entered = door.enter(self._index, directory, now)
        if isinstance(entered, Refusal):
            return entered
        shard = directory.shard(entered.principal.org)
        self._context = msgspec.structs.replace(self._context, principal=entered.principal, shard=shard)
        if not self._wiring.crowd.enter(entered.key.uid):
            return refusals.crowded(self._wiring.crowd.most)
        self.entered = entered.key.uid
        try:
            facts = read_facts(self._request.body, self._index)
        except Rejected as error:
            return refusals.rejected(error)
        self._context = msgspec.structs.replace(self._context, facts=facts)
        mark = self._mark = (entered.key.uid, facts.session, facts.agent, facts.body_digest)
        self._repeat = self._wiring.repeats.is_repeat(mark, now)
        if self._repeat and self._wiring.repeats.is_retry(mark):
            self._context = msgspec.structs.replace(self._context, retry=True)
        return self._wiring.policy.plan(entered.key, facts)

    async def _attempts(self, planned: tuple[Attempt, ...]) -> tuple[Refusal, str] | None:
        """One after the other until one was sent. Returns a refusal and its verdict, None when the client is served."""
        refused: tuple[Refusal, str] | None = None
        for attempt in planned:
            try:
                credential = self._wiring.credentials.header(attempt.provider.kind, attempt.credential.ref)
            except Unresolved:
                refused = refusals.credential_missing(attempt.provider.name, attempt.credential.ref), "unavailable"
                continue
            served, refused = await self._try(attempt, credential, fresh=False)
            if self._closed and self._closed.stale:
                # Upstream may have begun all the same: what goes out again is another attempt, with an entry of its own.
                served, refused = await self._try(attempt, credential, fresh=True)
            if served:
                return refused
        return refused

    async def _try(
        self, attempt: Attempt, credential: Header, *, fresh: bool
    ) -> tuple[bool, tuple[Refusal, str] | None]:
        """One attempt: whether the client is answered by it, and with what refusal. fresh: on a new connection."""
        self._number += 1
        replaces = self._last.rid if self._last else ""
        self._closed = None
        admitted = await self._admit(attempt, self._number, replaces, credential)
        if not isinstance(admitted, Admitted):
            return True, admitted
        self._last = admitted
        connection = await self._connect(admitted, fresh)
        if connection is None:
            return False, (refusals.upstream_unreachable(attempt.provider.name), "unavailable")
        return True, await self._send(admitted, connection, credential)

    async def _admit(
        self, attempt: Attempt, number: int, replaces: str, credential: Header
    ) -> Admitted | tuple[Refusal, str]:
        """Reserve the attempt; once more where the provider's own count of the input may let it in."""
        if blocked := self._wiring.presence.blocked(lifecycle.principal_of(self._context, attempt)):
            return self._denial(blocked), "refused"
        answer = await self._reserve(attempt, number, replaces)
        if isinstance(answer, Denied) and counting.is_worth_asking(answer, self._facts):
            answer = await self._recounted(answer, attempt, number, replaces, credential)
        return (self._denial(answer), "refused") if isinstance(answer, Denied) else answer

    async def _recounted(
        self, denied: Denied, attempt: Attempt, number: int, replaces: str, credential: Header
    ) -> Admitted | Denied | tuple[Refusal, str]:
        """The first question held nothing and is forgotten; this one has a rid of its own."""
        pool, facts, path = self._wiring.pool, self._facts, self._match.upstream_path
        found = await self._unless_gone(lambda: recount(pool, self._request, path, attempt, credential, facts, denied))
        if found is None:
            return denied
        self._context = msgspec.structs.replace(self._context, facts=found)
        return await self._reserve(attempt, number, replaces)

    async def _reserve(self, attempt: Attempt, number: int, replaces: str) -> Admitted | Denied | tuple[Refusal, str]:
        """Ask the owner, and at the same time write down that the attempt began."""
        wiring, context, loop = self._wiring, self._context, self._wiring.loop
        path = lifecycle.principal_of(context, attempt)
        rid = str(ULID())
        admitted = Admitted(attempt=attempt, started=lifecycle.started(context, rid, number, attempt), granted=None)
        ask = lifecycle.reserve(context, rid, number, attempt, replaces)
        hard = wiring.policy.has_hard_budget(path)
        before = loop.time()
        try:
            written = wiring.spool.start(admitted.started)
        except SpoolFailed:
            return refusals.spool_failed(), "unavailable"  # nothing is asked for, so nothing is to be closed
        try:
            verdict = await self._unless_gone(lambda: wiring.lender.reserve(ask, patient=hard))
            await written
        except ClientGone:
            await self._abandon(admitted, written)
            raise
        except SpoolFailed:
            wiring.owner.withdraw(rid)
            await self._abandon(admitted)
            return refusals.spool_failed(), "unavailable"
        except Unavailable as error:
            return await self._ungoverned(admitted, written, error, hard)
        telemetry.edge_reserve_seconds.observe(loop.time() - before)
        self._reserve_us = int((loop.time() - before) * 1_000_000)
        if isinstance(verdict, Denied):
            wiring.spool.drop(rid)
            return verdict
        self._rids.append(rid)
        return msgspec.structs.replace(admitted, granted=verdict)

    async def _ungoverned(
        self, admitted: Admitted, written: "asyncio.Future[None]", error: Unavailable, hard: bool
    ) -> Admitted | tuple[Refusal, str]:
        """No owner answers: a hard budget refuses, the others let it pass and say so."""
        if hard:
            await self._abandon(admitted, written)
            return refusals.unavailable(error), "unavailable"
        try:
            await written
        except SpoolFailed:
            await self._abandon(admitted)
            return refusals.spool_failed(), "unavailable"
        telemetry.edge_ungoverned.inc()
        self._rids.append(admitted.rid)
        return admitted

    async def _connect(self, admitted: Admitted, fresh: bool) -> UpstreamConnection | None:
        """None when the provider cannot be reached: the attempt is closed as void, and the next one may try."""
        try:
            at = origin(admitted.attempt.base_url)
            return await self._unless_gone(lambda: self._wiring.pool.acquire(at, fresh=fresh))
        except ClientGone:
            self._wiring.owner.withdraw(admitted.rid)
            await self._abandon(admitted)
            raise
        except Unavailable:
            report.attempted(admitted.attempt.provider.name, "unreachable")
            await self._abandon(admitted)
            return None

    async def _send(
        self, admitted: Admitted, connection: UpstreamConnection, credential: Header
    ) -> tuple[Refusal, str] | None:
        path = self._match.upstream_path
        self._sending = Sending(self._wiring, self._context, self._request, path, self._responder, admitted)
        try:
            self._closed = await self._sending.send(connection, credential)
        except SpoolFailed:
            connection.abort()
            self._wiring.owner.withdraw(admitted.rid)
            await self._abandon(admitted)
            return refusals.spool_failed(), "unavailable"
        refusal = self._closed.refusal
        return (refusal, "admitted") if refusal else None

    async def _abandon(self, admitted: Admitted, written: "asyncio.Future[None] | None" = None) -> None:
        """Close an attempt that was never sent: void."""
        wiring = self._wiring
        try:
            if written:
                await written
            await wiring.spool.end(lifecycle.voided(admitted.started, admitted.granted, wiring.clock()))
        except SpoolFailed as error:
            log.error("edge.void_not_durable", rid=admitted.rid, reason=str(error))

    async def _unless_gone(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask and wait, but no longer than the client stays. Raises ClientGone, at once when it has left already."""
        if self._responder.gone:
            raise ClientGone
        self._awaiting = True
        try:
            return await ask()
        except asyncio.CancelledError:
            if not self._responder.gone or self._task is None:
                raise  # the process ends
            self._task.uncancel()
            raise ClientGone from None
        finally:
            self._awaiting = False

    @property
    def _facts(self) -> Facts:
        assert self._context.facts is not None
        return self._context.facts

    def _denial(self, denied: Denied) -> Refusal:
        facts = self._facts
        now = self._wiring.clock()
        return denials.refusal(denied, self._wiring.directory, now, model=facts.model, stream=facts.stream)

    def _refuse(self, refusal: Refusal, verdict: str) -> None:
        refuse(self._responder, self._context, refusal)
        said = FORMATS[self._match.client_format]
        answer = said.render(refusal, self._context.request_id)
        self._complete(
            msgspec.structs.replace(
                self._verdict(verdict, outcome=self._closed.outcome if self._closed else "refused"),
                status=answer.status,
                reason=refusal.code,
                budget_id=refusal.limit.budget_id if refusal.limit else "",
                error_type=said.error_type(refusal),
                message=refusal.message,
            )
        )

    def _verdict(self, verdict: str, outcome: str) -> Verdict:
        closed, last = self._closed, self._last
        granted = last.granted if last else None
        return Verdict(
            verdict=verdict,
            closed_at=self._wiring.clock(),
            status=closed.status if closed else 0,
            error_type=closed.error_type if closed else "",
            outcome=outcome,
            attempts=tuple(self._rids),
            admitted_at=granted.admitted_at if granted else 0,
            reserve_us=self._reserve_us,
            first_byte_at=closed.first_byte_at if closed else 0,
            wire_model=last.attempt.wire_model if last else "",
            provider=last.attempt.provider.uid if last else "",
            bytes_in=len(self._request.body),
            bytes_out=self._responder.bytes_out,
            repeat=self._repeat,
        )

    def _complete(self, verdict: Verdict) -> None:
        if self._mark and self._last and verdict.outcome in THE_PROVIDERS_FAULT:
            self._wiring.repeats.failed(self._mark)
        config = self._last.attempt.provider_config if self._last else ""
        report.completed(self._wiring.spool, self._context, verdict, config)


def new_context(wiring: Wiring, match: Match) -> Context:
    """Before the door: nobody yet."""
    directory: Directory = wiring.directory
    return Context(
        me=wiring.me,
        request_id=f"req_{ULID()}",
        received_at=wiring.clock(),
        config_rev=directory.config_rev,
        principal=Principal(),
        operation=match.operation,
        client_format=match.client_format,
    )


def refuse(responder: Responder, context: Context, refusal: Refusal) -> None:
    """A refusal in the client's own words."""
    answer = FORMATS[context.client_format].render(refusal, context.request_id)
    if not responder.started:
        ours = (b"x-sluicegate-request-id", context.request_id.encode())
        responder.send(answer.status, [*answer.headers, ours], answer.body)
    else:
        responder.abort()
