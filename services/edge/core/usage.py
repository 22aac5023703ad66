"""The provider's usage object, turned into lines that are never folded (rules: pricing.md)."""

from collections.abc import Iterator
from typing import Any

import msgspec

from shared.contracts.edge import Line

Counts = dict[str, Any]
"""A usage object as decoded: whatever the provider put there."""

DEEPEST = 8  # no usage object is nested further
MOST = 10**8  # a larger count is no count; at a dear rate its price would not fit the ledger's integers either
MOST_ITERATIONS = 100  # each has up to six lines, and the record of all of them must fit into a message of the broker
MOST_UNKNOWN = 32
MOST_KEPT_BYTES = 32_768
LONGEST_TEXT = 128

KNOWN = frozenset(
    (
        *("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens"),
        *("cache_creation.ephemeral_5m_input_tokens", "cache_creation.ephemeral_1h_input_tokens"),
        *("output_tokens_details.thinking_tokens", "iterations"),
        *("server_tool_use.web_search_requests", "server_tool_use.web_fetch_requests"),
    )
)
"""Counters that become lines. Others, where they are not zero, make the entry unpriced: never free by oversight."""

_PROMPT = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "cache_creation")

BYTES_PER_TOKEN = 3
"""For what no provider counted. Prose and code have 3.3 to 4.5 bytes to the token, so this errs above the truth."""

TOKENS_PER_SECOND = 100
"""How fast a model writes at most: bounds what was made unseen for a client that hung up on a request without stream."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the request asked for; stands in where the answer is silent.

    region: of the provider. input_estimate: tokens (Facts). most_output_tokens: the hold's, or max_tokens; 0 unknown.
    """

    model: str
    region: str = ""
    speed: str = "standard"
    geo: str = ""
    input_estimate: int = 0
    most_output_tokens: int = 0
    stream: bool = True


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What one attempt used. provider_usage: the provider's merged usage object as JSON, empty when none was seen."""

    lines: tuple[Line, ...] = ()
    provider_usage: bytes = b""
    response_model: str = ""
    stop_reason: str = ""
    unknown_counters: tuple[str, ...] = ()
    estimated: bool = False


NOTHING = Usage()


def merge(into: Counts, later: Counts) -> None:
    """Cumulative reports: the last value of each counter wins, and null says nothing."""
    for name, value in later.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            merge(into[name], value)
        elif value is not None:
            into[name] = value


def of(counts: Counts, model: str, asked: Asked) -> tuple[Line, ...]:
    """Lines of a complete usage object. model: of the answer."""
    lines = list[Line]()
    common = _modifiers(counts, asked)
    for at, (iteration, own) in enumerate(_samplings(counts)):
        billed = msgspec.structs.replace(
            common, model=_text(iteration.get("model")) or model, iteration=at if own else 0
        )
        if own:
            billed = _own_modifiers(billed, iteration)
        for meter, quantity in _tokens(iteration):
            if quantity:
                lines.append(msgspec.structs.replace(billed, meter=meter, quantity=quantity))
    lines += _tools(counts, msgspec.structs.replace(common, model=model))
    return tuple(lines)


def _samplings(counts: Counts) -> Iterator[tuple[Counts, bool]]:
    """The iterations where there are any (top-level totals leave out compaction and advisor), else the whole."""
    listed = counts.get("iterations")
    iterations = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    if not iterations:
        yield counts, False
        return
    fell_back = any(each.get("type") == "fallback_message" for each in iterations)
    for each in iterations:
        declined = fell_back and each.get("type") == "message" and not number(each, "output_tokens")
        yield ({} if declined else each), True  # declined before any output: not billed, but it keeps its index


def _tokens(counts: Counts) -> Iterator[tuple[str, int]]:
    """Disjoint token meters of one sampling. Where the total of cache writes and their split disagree, the split wins."""
    split = counts.get("cache_creation")
    write_5m, write_1h = number(counts, "cache_creation_input_tokens"), 0
    if isinstance(split, dict) and split:
        write_5m, write_1h = number(split, "ephemeral_5m_input_tokens"), number(split, "ephemeral_1h_input_tokens")
    details = counts.get("output_tokens_details")
    output = number(counts, "output_tokens")
    thinking = min(output, number(details, "thinking_tokens")) if isinstance(details, dict) else 0
    yield "input", number(counts, "input_tokens")
    yield "cache_write_5m", write_5m
    yield "cache_write_1h", write_1h
    yield "cache_read", number(counts, "cache_read_input_tokens")
    yield "output", output - thinking
    yield "thinking", thinking


def _tools(counts: Counts, common: Line) -> Iterator[Line]:
    used = counts.get("server_tool_use")
    if isinstance(used, dict):
        for meter, name in (("web_search", "web_search_requests"), ("web_fetch", "web_fetch_requests")):
            if quantity := number(used, name):
                yield msgspec.structs.replace(common, meter=meter, quantity=quantity)


def _modifiers(counts: Counts, asked: Asked) -> Line:
    """Speed, geo and tier of the answer count, not those asked for: an unsupported wish is silently not granted."""
    tier = _text(counts.get("service_tier")) or "standard"
    return Line(
        meter="",
        quantity=0,
        model="",
        tier=tier,
        speed=_text(counts.get("speed")) or "standard",
        geo=_text(counts.get("inference_geo")),
        region=asked.region,
        batch=tier == "batch",
    )


def _own_modifiers(line: Line, iteration: Counts) -> Line:
    speed, geo = _text(iteration.get("speed")), _text(iteration.get("inference_geo"))
    return msgspec.structs.replace(line, speed=speed or line.speed, geo=geo or line.geo)


def unknown_counters(counts: Counts) -> tuple[str, ...]:
    """Dotted names of counters that are not zero and that we cannot turn into lines."""
    return tuple(sorted(set(_unknown(counts, ""))))[:MOST_UNKNOWN]


def _unknown(counts: Counts, path: str) -> Iterator[str]:
    """Our own counters too, where they hold something else than a count."""
    for name, value in counts.items():
        where = f"{path}{name}"
        if where == "iterations" and isinstance(value, list) and len(value) <= MOST_ITERATIONS:
            for each in value:
                if isinstance(each, dict):
                    yield from _unknown(each, "")
        elif where in KNOWN:
            if value is not None and not _counts(value):
                yield where
        elif isinstance(value, dict) and where.count(".") < DEEPEST:
            yield from _unknown(value, f"{where}.")
        elif _is_number(value) and value:
            yield where[:LONGEST_TEXT]


def complete(counts: Counts) -> bool:
    """Whether it can be billed as it stands: what must be there is, and none of our counters holds anything but a count.

    What is not must be estimated: a figure that nobody can read would be nothing, and so free.
    """
    there = _counts(counts.get("input_tokens")) and _counts(counts.get("output_tokens"))
    return there and KNOWN.isdisjoint(_unknown(counts, ""))


def kept(counts: Counts) -> bytes:
    """The provider's own object as JSON; empty when there is none, or one too large to be a usage object."""
    try:
        data = msgspec.json.encode(counts) if counts else b""
    except RecursionError:
        return b""
    return data if len(data) <= MOST_KEPT_BYTES else b""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _counts(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST


def number(counts: Counts, name: str) -> int:
    """A count, 0 where there is none or it is no count."""
    value = counts.get(name)
    return value if isinstance(value, int) and _counts(value) else 0


def _text(value: object) -> str:
    return value[:LONGEST_TEXT] if isinstance(value, str) else ""


def estimate(counts: Counts, model: str, asked: Asked, output_tokens: int) -> tuple[Line, ...]:
    """Lines of an answer that ended without its final report, or with one that is not `complete`.

    counts: what was reported so far, perhaps nothing. output_tokens: estimate of what has passed.
    """
    seen = dict(counts)
    wrong = KNOWN.intersection(_unknown(counts, ""))
    if wrong:
        seen["iterations"] = None
    if any(name.partition(".")[0] in _PROMPT for name in wrong):
        seen |= dict.fromkeys(_PROMPT)  # one class that cannot be read spoils the sum
    if seen.get("input_tokens") is None:
        seen["input_tokens"] = max(asked.input_estimate, number(counts, "input_tokens"))
    if not seen.get("iterations"):
        seen["output_tokens"] = max(number(seen, "output_tokens"), output_tokens)
    if not counts:  # nothing tells how it was served: take what was asked for
        seen |= {"speed": asked.speed, "inference_geo": asked.geo}
    return of(seen, model or asked.model, asked)


def unseen(asked: Asked, elapsed_ms: int) -> Usage:
    """The client hung up before a byte of the answer came: the provider has read the prompt, and may have written on.

    elapsed_ms: from sending to hanging up. A stream would have shown its first event before any output.
    """
    made = 0 if asked.stream else elapsed_ms * TOKENS_PER_SECOND // 1000
    if asked.most_output_tokens:
        made = min(made, asked.most_output_tokens)
    return Usage(lines=estimate({}, asked.model, asked, made), estimated=True)
