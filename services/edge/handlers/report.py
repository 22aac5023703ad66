"""How each client request ended: its record, its one log line, its metrics."""

import structlog
from prometheus_client import Counter

from services.edge.core import lifecycle
from services.edge.core.lifecycle import Context, Verdict
from services.edge.stores.spool import Spool
from shared import telemetry

log = structlog.get_logger()

_LABELS_MOST = 500
_counters: dict[tuple[str, str, int], Counter] = {}
_attempts: dict[tuple[str, str], Counter] = {}


def completed(spool: Spool, context: Context, verdict: Verdict, provider_config: str = "") -> None:
    """Written behind the answer: nobody waits for it."""
    record = lifecycle.completed(context, verdict, provider_config)
    spool.completed(record)
    _count(context.operation, verdict.verdict, verdict.status)
    if verdict.repeat:
        telemetry.edge_repeats.inc()
    telemetry.edge_request_seconds.observe(record.duration_ms / 1000)
    if record.ttft_ms >= 0:
        telemetry.edge_ttft_seconds.observe(record.ttft_ms / 1000)
    log.info(
        "edge.request_completed",
        request_id=record.request_id,
        operation=record.operation,
        verdict=record.verdict,
        reason=record.reason,
        status=record.status,
        outcome=record.outcome,
        error_type=record.error_type,
        team=record.principal.team,
        key=record.principal.key,
        request_model=record.request_model,
        wire_model=record.wire_model,
        stream=record.stream,
        session=record.session,
        client_version=record.client_version,
        attempts=record.attempts,
        bytes_in=record.bytes_in,
        bytes_out=record.bytes_out,
        reserve_us=record.reserve_us,
        ttft_ms=record.ttft_ms,
        duration_ms=record.duration_ms,
        trace_id=record.trace_id,
    )


def attempted(provider: str, outcome: str) -> None:
    """One attempt is over. provider: its name in the organisation. Beyond a few hundred of them they are counted together."""
    labels = (provider, outcome)
    counter = _attempts.get(labels)
    if counter is None:
        known = len(_attempts) < _LABELS_MOST
        counter = telemetry.edge_attempts.labels(provider if known else "others", outcome)
        if known:
            _attempts[labels] = counter
    counter.inc()


def _count(operation: str, verdict: str, status: int) -> None:
    """Looking a labelled counter up costs more than counting: keep each. The labels are few: none is the client's word."""
    labels = (operation, verdict, status)
    counter = _counters.get(labels)
    if counter is None:
        counter = telemetry.edge_requests.labels(operation, verdict, str(status))
        if len(_counters) < _LABELS_MOST:
            _counters[labels] = counter
    counter.inc()
