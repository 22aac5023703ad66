"""Which trace and which span a record is: the caller's where it sent one, else always the same from the record's own id."""

import hashlib
import re

import msgspec

_TRACE = re.compile(r"[0-9a-f]{32}")
_SPAN = re.compile(r"[0-9a-f]{16}")


class Caller(msgspec.Struct, frozen=True):
    """Where the caller stands in its trace. span_id: 0 where only the trace is known."""

    trace_id: int
    span_id: int
    sampled: bool


def caller(trace_id: str, parent_span_id: str, sampled: bool) -> Caller | None:
    """None where there is no trace, or one that W3C calls invalid: of zeros."""
    trace = int(trace_id, 16) if _TRACE.fullmatch(trace_id) else 0
    span = int(parent_span_id, 16) if _SPAN.fullmatch(parent_span_id) else 0
    return Caller(trace, span, sampled) if trace else None


def trace_of(request_id: str) -> int:
    """128 bits for a request that came without a trace."""
    return _digest("trace", request_id, 16)


def span_of_request(request_id: str) -> int:
    return _digest("request", request_id, 8)


def span_of_attempt(rid: str) -> int:
    return _digest("attempt", rid, 8)


def _digest(kind: str, text: str, size: int) -> int:
    """A hash, since samplers by ratio look at the bits as if they were random. Never 0, which means none."""
    digest = hashlib.blake2b(text.encode(), digest_size=size, person=kind.encode()).digest()
    return int.from_bytes(digest, "big") or 1
