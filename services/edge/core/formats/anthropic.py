"""The Anthropic Messages format of refusals, pings and ends of streams (contract, sections 1 and 2.5)."""

from typing import Any

import msgspec

from services.edge.core.formats.answer import Answer
from services.edge.core.headers import Headers, reset_headers, utilization
from services.edge.core.meter import Tail
from services.edge.core.refusals import Limit, Reason, Refusal

STATUS: dict[Reason, tuple[int, str]] = {
    "authentication": (401, "authentication_error"),
    "invalid": (400, "invalid_request_error"),
    "not_found": (404, "not_found_error"),
    "too_large": (413, "request_too_large"),
    "spent": (429, "billing_error"),
    "busy": (429, "rate_limit_error"),
    "beyond": (429, "rate_limit_error"),
    "unavailable": (503, "api_error"),
    "misconfigured": (503, "api_error"),
    "not_supported": (501, "not_supported"),
    "timeout": (408, "timeout_error"),
}
"""Never 403 or 404 for budgets and models: the client would show "Please run /login", or hide our text."""

FINAL: frozenset[Reason] = frozenset(("authentication", "spent", "beyond", "misconfigured", "not_supported"))
"""Answers that the client would otherwise repeat up to ten times, for minutes."""

PERIODS = {"day": b"daily", "week": b"weekly", "month": b"monthly"}
PING = b'event: ping\ndata: {"type": "ping"}\n\n'
NEUTRALISE = b"event: ping\n\n"


class Anthropic:
    """See ClientFormat."""

    name = "anthropic"

    def render(self, refusal: Refusal, request_id: str) -> Answer:
        status, error_type = STATUS[refusal.reason]
        headers: Headers = [(b"content-type", b"application/json"), (b"request-id", request_id.encode())]
        if refusal.retry_after_s:
            headers.append((b"retry-after", str(refusal.retry_after_s).encode()))
        if refusal.reason in FINAL:
            headers.append((b"x-should-retry", b"false"))
        if refusal.limit and refusal.reason == "spent":
            headers += _spent_headers(refusal.limit)
        return Answer(status=status, headers=headers, body=envelope(error_type, refusal.message, request_id))

    def error_type(self, refusal: Refusal) -> str:
        """For the request log."""
        return STATUS[refusal.reason][1]

    def ping(self) -> bytes:
        return PING

    def ending(self, tail: Tail, error_type: str, message: str, request_id: str) -> bytes:
        """Finish the event that was cut, close an open text block when the stop is final, then `event: error`.

        A cut event cannot be taken back, but a later `event:` line overrides its type, and clients skip a ping without
        looking at its data. An open text block is closed only for billing_error: the client then keeps the partial
        answer and stops. In all other cases it stays open, since then the client repeats the request by itself, and a
        tool's half-written input must never be closed: it would be run.
        """
        parts = [] if tail.at_boundary else [_rest_of_line(tail.last_bytes), NEUTRALISE]
        if error_type == "billing_error" and tail.open_text >= 0:
            parts.append(_event("content_block_stop", {"type": "content_block_stop", "index": tail.open_text}))
        error = {"type": "error", "error": {"type": error_type, "message": message}, "request_id": request_id}
        return b"".join((*parts, _event("error", error)))


def envelope(error_type: str, message: str, request_id: str) -> bytes:
    """The body of every error answer."""
    error = {"type": error_type, "message": message}
    return msgspec.json.encode({"type": "error", "error": error, "request_id": request_id})


def _event(name: str, data: dict[str, Any]) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + msgspec.json.encode(data) + b"\n\n"


def _spent_headers(limit: Limit) -> Headers:
    """Without representative-claim and overage-status: with them the client drops our sentence for one of its own."""
    found: Headers = [
        (b"anthropic-ratelimit-unified-status", b"rejected"),
        *reset_headers(limit.resets_at),
        (b"anthropic-ratelimit-unified-overage-utilization", utilization(limit.utilization_ppm)),
        (b"anthropic-ratelimit-unified-overage-surpassed-threshold", b"1"),
        (b"anthropic-ratelimit-unified-overage-disabled-reason", b"org_spend_cap_reached"),
    ]
    if limit.period in PERIODS:
        found.append((b"anthropic-ratelimit-unified-overage-period", PERIODS[limit.period]))
    if limit.pooled:
        found.append((b"anthropic-ratelimit-unified-overage-scope", b"group_pool"))
    return found


def _rest_of_line(last: bytes) -> bytes:
    """Nothing where a line has just ended: one more line break would send the cut event off as it is."""
    return b"" if last.endswith(b"\n") else _rest_of_character(last) + b"\n"


def _rest_of_character(last: bytes) -> bytes:
    """The bytes that complete a UTF-8 character cut at the end of `last` (at most 3 bytes), else nothing.

    Some clients decode each line strictly and would fail on the half.
    """
    for back in range(1, min(3, len(last)) + 1):
        byte = last[-back]
        if byte < 0x80:
            return b""
        if byte >= 0xC0:
            return _completed(byte, have=back)
    return b""


def _completed(lead: int, have: int) -> bytes:
    """Continuation bytes after `lead` when `have` bytes of the character are there; the second byte has its own range."""
    length = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    second = {0xE0: 0xA0, 0xF0: 0x90}.get(lead, 0x80)
    missing = bytes([second]) + b"\x80\x80" if have == 1 else b"\x80\x80"
    return missing[: max(0, length - have)]
