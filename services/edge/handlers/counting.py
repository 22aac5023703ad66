"""Asks the provider, free of charge, how large a prompt really is, where its bound alone keeps it out."""

import structlog

from services.edge.core import counting
from services.edge.core import headers as wire
from services.edge.core.facts import Facts
from services.edge.core.policy import Attempt
from services.edge.handlers.attempt import origin, request_head
from services.edge.handlers.request import Request
from services.edge.stores.upstream import UpstreamPool, fetch
from shared import telemetry
from shared.contracts.budget import Denied
from shared.errors import Unavailable

log = structlog.get_logger()

SECONDS = 2.5  # the client waits meanwhile
_outcomes = {outcome: telemetry.edge_input_counts.labels(outcome) for outcome in ("smaller", "larger", "failed")}
KINDS = ("anthropic",)  # providers with such an endpoint


async def recount(
    pool: UpstreamPool,
    request: Request,
    upstream_path: str,
    attempt: Attempt,
    credential: wire.Header,
    facts: Facts,
    denied: Denied,
) -> Facts | None:
    """The facts with the provider's count; None where it has none, or one that helps nothing."""
    if attempt.provider.kind not in KINDS:
        return None
    body = counting.question(request.body, attempt.wire_model)
    passed = wire.request_headers_for_upstream(request.head.headers, credential)
    try:
        at = origin(attempt.base_url)
        head = request_head(at, "POST", counting.path(upstream_path), passed, len(body))
        fetched = await fetch(pool, at, head, body, SECONDS)
        tokens = counting.answer(fetched.head.status, fetched.body)
    except Unavailable:
        _outcomes["failed"].inc()
        return None
    found = counting.counted(facts, tokens)
    smaller = counting.bound_of(found) < denied.input_bound
    _outcomes["smaller" if smaller else "larger"].inc()
    log.info("edge.input_counted", input_tokens=tokens, input_bound=denied.input_bound, model=attempt.wire_model)
    return found if smaller else None
