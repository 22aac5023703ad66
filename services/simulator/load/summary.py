"""How the traffic fared, as its clients saw it."""

import re
from typing import Literal

import msgspec

Result = Literal["ok", "refused", "failed", "broken", "disconnected", "unreachable"]
_INPUT = re.compile(rb'"(?:input_tokens|cache_creation_input_tokens|cache_read_input_tokens)":(\d+)')
_OUTPUT = re.compile(rb'"output_tokens":(\d+)')


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """One request, ended.

    result: ok; refused (4xx: a budget, a limit, a policy, or a simulated fault); failed (5xx); broken (the answer did
    not end well); disconnected (we hung up); unreachable (no answer at all). ttft_ms: -1 when nothing came.
    """

    number: int
    kind: str
    result: Result
    status: int
    request_id: str = ""
    error_type: str = ""
    ttft_ms: int = -1
    duration_ms: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


class Summary(msgspec.Struct, kw_only=True):
    """Counts so far, and times in milliseconds. p50 and p99 are over requests that ended well."""

    total: int = 0
    results: dict[str, int] = msgspec.field(default_factory=dict)
    kinds: dict[str, int] = msgspec.field(default_factory=dict)
    statuses: dict[str, int] = msgspec.field(default_factory=dict)
    error_types: dict[str, int] = msgspec.field(default_factory=dict)
    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    requests_per_second: float = 0.0
    ttft_p50_ms: int = 0
    ttft_p99_ms: int = 0
    duration_p50_ms: int = 0
    duration_p99_ms: int = 0

    def add(self, done: Done) -> None:
        """Count one more."""
        self.total += 1
        for counts, name in ((self.results, done.result), (self.kinds, done.kind), (self.statuses, str(done.status))):
            counts[name] = counts.get(name, 0) + 1
        if done.error_type:
            self.error_types[done.error_type] = self.error_types.get(done.error_type, 0) + 1
        self.input_tokens += done.input_tokens
        self.output_tokens += done.output_tokens


def percentile(values: list[int], percent: int) -> int:
    """The value that so many percent do not pass; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] if ordered else 0


def tokens(answer: bytes) -> tuple[int, int]:
    """Input and output tokens that an answer tells of, streamed or whole: input from its first usage, output from its last.

    A glance, good enough to show traffic by; money is counted elsewhere.
    """
    start = answer.find(b'"usage"')
    if start < 0:
        return 0, 0
    first = answer[start : answer.find(b'"output_tokens"', start)]
    counts = [int(found) for found in _INPUT.findall(first)]
    outputs = _OUTPUT.findall(answer)
    return sum(counts), int(outputs[-1]) if outputs else 0


def error_type(answer: bytes) -> str:
    """The type of the error in an answer, or ""."""
    at = answer.rfind(b'"type":"error"')
    found = re.search(rb'"error":\s*\{\s*"type":\s*"([a-z_]+)"', answer[max(at, 0) :])
    return found.group(1).decode() if found else ""
