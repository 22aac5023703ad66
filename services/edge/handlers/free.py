"""What costs nothing: count_tokens, the model list, the key's own balance. Never reserved, never blocked by a budget."""

from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from services.edge.core import door, headers, models, policy, refusals, spending
from services.edge.core.facts import read_facts
from services.edge.core.formats import FORMATS
from services.edge.core.headers import Index
from services.edge.core.lifecycle import Verdict
from services.edge.core.operations import Match
from services.edge.core.policy import Attempt
from services.edge.core.refusals import Refusal
from services.edge.handlers import report
from services.edge.handlers.attempt import origin, request_head
from services.edge.handlers.exchange import new_context, refuse
from services.edge.handlers.request import Request
from services.edge.handlers.responder import Headers, Responder
from services.edge.handlers.wiring import Wiring
from services.edge.stores.credentials import Unresolved
from services.edge.stores.upstream import Fetched, fetch
from shared.contracts.config import Key
from shared.errors import Rejected, Unavailable

log = structlog.get_logger()

COUNT_SECONDS = 60.0
MODELS_SECONDS = 2.5  # the client waits 3 s
JSON = (b"content-type", b"application/json")

Reply = tuple[int, Headers, bytes, bytes | None]
"""Status, headers, body, and the reason where the provider gave one."""


class _Page(msgspec.Struct):
    data: list[dict[str, Any]]
    has_more: bool = False


_page = msgspec.json.Decoder(_Page)


class Free:
    """One request that is not governed by budgets. It is recorded like every other, with the verdict free."""

    def __init__(self, wiring: Wiring, request: Request, index: Index, match: Match, responder: Responder) -> None:
        self._wiring = wiring
        self._request = request
        self._index = index
        self._match = match
        self._responder = responder
        self._context = new_context(wiring, match)
        self._attempt: Attempt | None = None
        self.entered = ""  # the key that this request counts for, until it has ended

    async def run(self) -> None:
        entered = door.enter(self._index, self._wiring.directory, self._context.received_at)
        if isinstance(entered, Refusal):
            self._end(entered, "rejected")
            return
        self._context = msgspec.structs.replace(self._context, principal=entered.principal)
        if not self._wiring.crowd.enter(entered.key.uid):
            self._end(refusals.crowded(self._wiring.crowd.most), "rejected")
            return
        self.entered = entered.key.uid
        try:
            reply = await self._reply(entered.key)
        except Rejected as error:
            self._end(refusals.rejected(error), "rejected")
        except Unavailable as error:
            self._end(refusals.unavailable(error), "unavailable")
        else:
            self._end(reply, "rejected" if isinstance(reply, Refusal) else "free")

    async def _reply(self, key: Key) -> Reply | Refusal:
        match self._match.operation:
            case "count_tokens":
                return await self._count_tokens(key)
            case "models":
                return 200, [JSON], await self._models(key), None
            case "model":
                return await self._model(key)
            case "usage":
                return await self._usage(key)
        return refusals.not_found(self._request.head.method, self._request.head.path)

    async def _count_tokens(self, key: Key) -> Reply | Refusal:
        facts = read_facts(self._request.body, self._index)
        self._context = msgspec.structs.replace(self._context, facts=facts)
        planned = policy.plan(self._wiring.directory, key, facts)
        if isinstance(planned, Refusal):
            return planned
        try:
            fetched = await self._fetch(planned[0], "POST", self._request.body, COUNT_SECONDS)
        except Unresolved as error:
            return refusals.credential_missing(planned[0].provider.name, str(error))
        except Unavailable:
            return refusals.upstream_unreachable(planned[0].provider.name)
        if fetched.head.status == 404:  # this provider cannot count; else the client would repeat the call, billed
            name = planned[0].provider.name
            message = f"Provider '{name}' does not count tokens."
            return Refusal(reason="not_supported", code="not_supported", message=message)
        return self._passed_on(fetched)

    async def _models(self, key: Key) -> bytes:
        """The provider's list as the key's policy has it; the price book's when it does not come in time."""
        directory, now = self._wiring.directory, self._wiring.clock()
        if (attempt := self._any_attempt(key)) is not None:
            try:
                fetched = await self._fetch(attempt, "GET", b"", MODELS_SECONDS)
            except (Unavailable, Unresolved):
                log.info("edge.models_from_book", provider=attempt.provider.name)
            else:
                good = fetched.head.status == 200
                found = filtered(fetched.body, lambda model: policy.servable(directory, key, model)) if good else None
                if found is not None:
                    return found
        return models.listing(directory, key, self._wiring.catalogue.cards, now)

    async def _model(self, key: Key) -> Reply | Refusal:
        """One model, if the key may use it. A model that is denied does not exist for this key."""
        directory, model = self._wiring.directory, self._match.argument
        attempt = self._any_attempt(key)
        if attempt is not None and policy.servable(directory, key, model):
            try:
                return self._passed_on(await self._fetch(attempt, "GET", b"", MODELS_SECONDS))
            except (Unavailable, Unresolved):
                known = models.one(directory, key, self._wiring.catalogue.cards, model, self._wiring.clock())
                if known is not None:
                    return 200, [JSON], known, None
        return refusals.no_such_model(model)

    def _any_attempt(self, key: Key) -> Attempt | None:
        """The first provider that this key may use, for what is not about one model."""
        directory = self._wiring.directory
        named = [directory.provider(config.provider) for config in key.providers]
        for provider in named or directory.providers(key.org):
            if provider is None:
                continue
            for credential in policy.by_preference(provider.credentials, key.uid):
                return Attempt(
                    provider=provider,
                    provider_config="",
                    credential=credential,
                    wire_model="",
                    base_url=provider.base_url,
                )
        return None

    async def _fetch(self, attempt: Attempt, method: str, body: bytes, seconds: float) -> Fetched:
        self._attempt = attempt
        credential = self._wiring.credentials.header(attempt.provider.kind, attempt.credential.ref)
        passed = headers.request_headers_for_upstream(self._request.head.headers, credential)
        at = origin(attempt.base_url)
        head = request_head(at, method, self._match.upstream_path, passed, len(body))
        return await fetch(self._wiring.pool, at, head, body, seconds)

    def _passed_on(self, fetched: Fetched) -> Reply | Refusal:
        if refusals.is_redirect(fetched.head.status):
            return refusals.upstream_redirected(self._attempt.provider.name if self._attempt else "")
        passed = headers.response_headers_for_client(fetched.head.headers, self._context.request_id, [])
        return fetched.head.status, passed, fetched.body, fetched.head.reason

    async def _usage(self, key: Key) -> Reply:
        """What Claude Code's /usage shows."""
        asked = spending.asked(self._wiring.directory, key)
        balances = (await self._wiring.owner.balances(asked)).items if asked else ()
        return 200, [JSON], spending.usage(balances), None

    def _end(self, reply: Reply | Refusal, verdict: str) -> None:
        context, said = self._context, FORMATS[self._match.client_format]
        if isinstance(reply, Refusal):
            refuse(self._responder, context, reply)
            status, reason, error = said.render(reply, context.request_id).status, reply.code, said.error_type(reply)
        else:
            status, added, body, phrase = reply
            reason = error = ""
            if not any(name.lower() == b"request-id" for name, _ in added):
                added = [*added, (b"request-id", context.request_id.encode())]
            ours = (b"x-sluicegate-request-id", context.request_id.encode())
            self._responder.send(status, [*added, ours], body, phrase)
        outcome = "ok" if status < 400 else "upstream_error" if verdict == "free" else "refused"
        verdict_ = Verdict(
            verdict=verdict,
            closed_at=self._wiring.clock(),
            status=status,
            reason=reason,
            error_type=error,
            message=reply.message if isinstance(reply, Refusal) else "",
            outcome=outcome,
            provider=self._attempt.provider.uid if self._attempt else "",
            bytes_in=len(self._request.body),
            bytes_out=self._responder.bytes_out,
        )
        report.completed(self._wiring.spool, context, verdict_)


def filtered(answer: bytes, servable: Callable[[str], bool]) -> bytes | None:
    """The provider's list, less what the key may not use; None when it is no list. On one page: it was asked for whole."""
    try:
        page = _page.decode(answer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    kept = [entry for entry in page.data if isinstance(entry.get("id"), str) and servable(entry["id"])]
    ends = {"first_id": kept[0]["id"], "last_id": kept[-1]["id"]} if kept else {"first_id": None, "last_id": None}
    return msgspec.json.encode({"data": kept, "has_more": page.has_more, **ends})
