"""Streams of events. The same bytes and usage for every split; what was reported is what json.loads reads in the whole."""

import json
import re
from typing import Any

from services.edge.core.formats import FORMATS
from services.edge.core.meter import JsonMeter, StreamMeter
from services.edge.core.usage import Usage
from tests.fixtures.exchanges import ASKED, parse
from tests.fuzz.splits import split

FORMAT = FORMATS["anthropic"]
_EVENT = re.compile(rb"event: ([^\n]*)\ndata: ([^\n]*)")
_MARK = b'"delta":{"type":"'


def check(data: bytes) -> None:
    released, whole = fed([data])
    assert released + whole.held() == data
    apart, meter = fed(split(data))
    assert apart + meter.held() == data
    if is_framed(data):
        assert (meter.usage(), meter.error_type) == (whole.usage(), whole.error_type)
        assert meter.output_tokens == whole.output_tokens
    for line in whole.usage().lines:
        assert line.quantity > 0
    if not meter.feed(b"").ended:
        ends_well(apart, meter)
    as_reported(data, whole.usage())
    as_json(data)


def is_framed(data: bytes) -> bool:
    """Written as a provider writes: an estimate of what is written otherwise may depend on the split."""
    return b"\r" not in data and all(is_event(event) for event in data.split(b"\n\n")[:-1])


def is_event(event: bytes) -> bool:
    framed = _EVENT.fullmatch(event)
    if framed is None or (_MARK in event and framed[1] != b"content_block_delta"):
        return False
    try:
        json.loads(framed[2])
    except (ValueError, RecursionError):
        return False
    return event.count(_MARK) < 2


def fed(parts: list[bytes]) -> tuple[bytes, StreamMeter]:
    meter, released = StreamMeter(ASKED), bytearray()
    for part in parts:
        released += meter.feed(part).data
    return bytes(released), meter


def ends_well(released: bytes, meter: StreamMeter) -> None:
    """Broken off here, the client sees an error as the last event, whatever the last byte was."""
    ending = FORMAT.ending(meter.tail(), "api_error", "It broke.", "req_1")
    try:
        events = parse(released + ending)
    except UnicodeDecodeError:
        return
    if b"\r" not in released:
        assert events[-1][0] == "error"


def as_json(data: bytes) -> None:
    """The same bytes as an answer that does not stream."""
    meter, released = JsonMeter(ASKED), b""
    for part in split(data):
        released += meter.feed(part).data
    assert released + meter.held() == data
    usage = meter.usage()
    assert all(line.quantity > 0 for line in usage.lines)


class _Odd(Exception):
    """The reference has no opinion."""


def as_reported(data: bytes, usage: Usage) -> None:
    """Only where a stream is what it should be: LF, UTF-8, JSON in every event, nothing twice."""
    try:
        counts, model, reason = reference(data)
    except _Odd:
        return
    assert json.loads(usage.provider_usage or b"{}") == counts
    assert usage.response_model == model
    assert usage.stop_reason == reason


def reference(data: bytes) -> tuple[dict[str, Any], str, str]:
    """Merged usage, model and reason of a stream, read without haste."""
    if b"\r" in data or not data.endswith(b"\n\n"):
        raise _Odd
    counts, model, reason = dict[str, Any](), "", ""
    for text in decoded(data).split("\n\n"):
        name, event = one(text)
        if name == "message_start":
            merge(counts, of(event, "message", "usage"))
            model = string(of(event, "message"), "model")
        elif name == "content_block_start" and of(event, "content_block").get("type") == "fallback":
            raise _Odd
        elif name == "message_delta":
            reason = string(of(event, "delta"), "stop_reason") or reason
            merge(counts, of(event, "usage"))
        elif name in ("message_stop", "error"):
            break
    return counts, model, reason


def decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise _Odd from None


def one(text: str) -> tuple[str, dict[str, Any]]:
    lines = [line for line in text.split("\n") if line]
    if not lines:
        return "", {}
    if not is_event(text.encode()) or len(lines) != 2:
        raise _Odd
    if any(mark in text for mark in "\v\f\x1c\x1d\x1e\x85\u2028\u2029"):
        raise _Odd
    try:
        event = json.loads(lines[1][6:], object_pairs_hook=once, parse_constant=odd, parse_float=odd, parse_int=small)
    except (json.JSONDecodeError, RecursionError):
        raise _Odd from None
    if not isinstance(event, dict) or event.get("type") != lines[0][7:]:
        raise _Odd
    return lines[0][7:], event


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise _Odd
    return dict(pairs)


def odd(text: str) -> float:
    raise _Odd


def small(text: str) -> int:
    if len(text) > 15:
        raise _Odd
    return int(text)


def of(event: dict[str, Any], *path: str) -> dict[str, Any]:
    for name in path:
        found = event.get(name, {})
        if not isinstance(found, dict):
            if found is None and name == "usage":
                return {}
            raise _Odd
        event = found
    return event


def string(event: dict[str, Any], name: str) -> str:
    found = event.get(name)
    if found is not None and not isinstance(found, str):
        raise _Odd
    if found and (len(found) > 100 or not found.isprintable()):
        raise _Odd
    return found or ""


def merge(into: dict[str, Any], later: dict[str, Any]) -> None:
    for name, value in later.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            merge(into[name], value)
        elif value is not None:
            into[name] = value
