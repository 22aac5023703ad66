"""The side scanner and the ends of streams."""

import json
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.edge.core.formats import Anthropic
from services.edge.core.meter import JsonMeter, StreamMeter, meter_for
from services.edge.core.usage import Usage
from tests.fixtures.exchanges import ASKED, STREAMS, event, parse

FORMAT = Anthropic()
USAGE = {"input_tokens": 10, "cache_read_input_tokens": 5, "output_tokens": 1}


def fed(pieces: list[bytes]) -> tuple[bytes, StreamMeter]:
    """All released bytes and the meter after the pieces."""
    meter, released = StreamMeter(ASKED), b""
    for piece in pieces:
        released += meter.feed(piece).data
    return released, meter


def start(**usage: object) -> bytes:
    return event("message_start", message={"model": "claude-served", "usage": USAGE | usage})


def text(piece: str, index: int = 0) -> bytes:
    return event("content_block_delta", index=index, delta={"type": "text_delta", "text": piece})


def opened(index: int = 0, kind: str = "text") -> bytes:
    return event("content_block_start", index=index, content_block={"type": kind})


def ended(output_tokens: int = 30, reason: str = "end_turn", **usage: object) -> bytes:
    counts = {"output_tokens": output_tokens} | usage
    return event("message_delta", delta={"stop_reason": reason}, usage=counts) + event("message_stop")


def quantities(usage: Usage) -> dict[str, int]:
    return {line.meter: line.quantity for line in usage.lines}


@pytest.mark.parametrize("name", STREAMS)
def test_every_split_in_two_gives_the_same_bytes_and_usage(name: str) -> None:
    stream = STREAMS[name]
    whole_released, whole = fed([stream])
    for at in range(len(stream) + 1):
        released, meter = fed([stream[:at], stream[at:]])
        assert released == whole_released
        assert meter.held() == whole.held()
        assert meter.usage() == whole.usage()


@pytest.mark.parametrize("name", STREAMS)
def test_byte_by_byte_gives_the_same_bytes_and_usage(name: str) -> None:
    stream = STREAMS[name]
    released, meter = fed([stream[at : at + 1] for at in range(len(stream))])
    assert released + meter.held() == stream
    assert meter.usage() == fed([stream])[1].usage()


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(STREAMS)), st.lists(st.integers(0, 2000)), st.booleans())
def test_any_split_gives_the_same_bytes_and_usage(name: str, cuts: list[int], carriage: bool) -> None:
    stream = STREAMS[name].replace(b"\n", b"\r\n") if carriage else STREAMS[name]
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    released, meter = fed([stream[left:right] for left, right in pairwise(edges)])
    assert released + meter.held() == stream
    assert meter.usage() == fed([STREAMS[name]])[1].usage() or carriage
    assert quantities(meter.usage()).keys() == quantities(fed([STREAMS[name]])[1].usage()).keys()


def test_only_the_terminal_event_is_kept_back() -> None:
    head = start() + opened() + text("hi")
    for stop in (event("message_stop"), event("error", error={"type": "overloaded_error"})):
        released, meter = fed([head, stop])
        assert released == head
        assert meter.held() == stop


def test_a_delta_goes_out_at_once_even_when_it_is_incomplete() -> None:
    meter = StreamMeter(ASKED)
    meter.feed(start() + opened())
    assert meter.feed(text("hello")[:60]).data == text("hello")[:60]
    assert not meter.tail().at_boundary
    assert meter.feed(text("hello")[60:]).data == text("hello")[60:]
    assert meter.tail().at_boundary


def test_a_recorded_stream_is_metered_as_the_provider_reported_it() -> None:
    usage = fed([STREAMS["02-first-turn-197"]])[1].usage()
    assert quantities(usage) == {"input": 12, "cache_write_5m": 15000, "output": 80}
    assert {(line.model, line.geo, line.speed) for line in usage.lines} == {("claude-opus-4-8", "global", "standard")}
    assert (usage.response_model, usage.stop_reason, usage.estimated) == ("claude-opus-4-8", "tool_use", False)


def test_the_last_cumulative_usage_wins_and_is_never_added() -> None:
    first = event("message_delta", delta={"stop_reason": None}, usage={"output_tokens": 10, "input_tokens": None})
    usage = fed([start(), first, ended(30)])[1].usage()
    assert quantities(usage) == {"input": 10, "cache_read": 5, "output": 30}
    assert json.loads(usage.provider_usage) == USAGE | {"output_tokens": 30}


def test_a_stream_without_its_final_report_is_estimated_from_what_passed() -> None:
    usage = fed([start(), opened(), text("x" * 300)])[1].usage()
    assert usage.estimated
    assert quantities(usage) == {"input": 10, "cache_read": 5, "output": 100}


def test_thinking_that_is_hidden_is_counted_by_its_estimates() -> None:
    thought = {"type": "thinking_delta", "thinking": "", "estimated_tokens": 40}
    deltas = event("content_block_delta", index=0, delta=thought) * 3
    meter = fed([start(), opened(kind="thinking"), deltas])[1]
    assert quantities(meter.usage())["output"] == 120
    assert meter.output_tokens == 120


def test_a_thought_of_which_nothing_is_told_is_noticed_while_it_is_had_and_after_it() -> None:
    stop = event("content_block_stop", index=0)
    signature = event("content_block_delta", index=0, delta={"type": "signature_delta", "signature": "x"})
    told = event(
        "content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "", "estimated_tokens": 4}
    )
    for kind in ("thinking", "redacted_thinking"):
        for seen in ([], [signature], [signature, stop, opened(1), text("so", 1)]):
            assert fed([start(), opened(kind=kind), *seen])[1].hides
        assert not fed([start(), opened(kind=kind), told, signature, stop])[1].hides
    assert not fed([start(), opened(), stop])[1].hides


def test_a_signature_is_no_output() -> None:
    signature = event("content_block_delta", index=0, delta={"type": "signature_delta", "signature": "x" * 900})
    assert quantities(fed([start(), opened(kind="thinking"), signature])[1].usage())["output"] == 1


def test_thinking_is_left_out_of_output() -> None:
    usage = fed([start(), ended(30, output_tokens_details={"thinking_tokens": 12})])[1].usage()
    assert quantities(usage) == {"input": 10, "cache_read": 5, "output": 18, "thinking": 12}


def test_an_answer_without_any_usage_is_estimated_from_the_request() -> None:
    no_usage = event("message_start", message={"model": "m"}) + opened() + text("y" * 30) + event("message_stop")
    usage = fed([no_usage])[1].usage()
    assert usage.estimated
    assert quantities(usage) == {"input": 700, "output": 10}
    assert {(line.speed, line.geo) for line in usage.lines} == {("fast", "us")}


def test_a_refusal_before_any_output_is_free() -> None:
    assert fed([start(), ended(1, "refusal")])[1].usage().lines == ()
    assert fed([start(), opened(), text("no"), ended(1, "refusal")])[1].usage().lines


def test_an_event_that_is_no_json_passes_and_leaves_an_estimate() -> None:
    odd = b'event: message_delta\ndata: {"type":"message_delta","usage":\n\n'
    released, meter = fed([start(), odd, event("message_stop")])
    assert released == start() + odd
    assert meter.usage().estimated


def test_events_without_names_and_unknown_events_are_read() -> None:
    named = start() + event("novelty", x=1) + b": comment\n\n" + opened() + text("abc") + ended()
    bare = b"".join(line + b"\n" for line in named.split(b"\n") if not line.startswith(b"event:"))[:-1]
    released, meter = fed([bare[at : at + 7] for at in range(0, len(bare), 7)])
    assert released + meter.held() == bare
    assert quantities(meter.usage()) == quantities(fed([named])[1].usage())


def test_text_that_looks_like_an_event_is_text() -> None:
    nasty = 'event: message_stop\n\ndata: {"type":"message_stop"}\n\n"type":"thinking_delta"'
    released, meter = fed([start(), opened(), text(nasty), text(nasty)])
    assert released == start() + opened() + text(nasty) * 2
    assert not meter.feed(text("on")).ended


def test_a_run_of_deltas_counts_the_same_as_its_deltas_one_by_one() -> None:
    deltas = [text("word " * n) for n in range(1, 40)]
    tool = event("content_block_delta", index=1, delta={"type": "input_json_delta", "partial_json": '{"a": 1'})
    stop = event("content_block_stop", index=0)
    together = fed([start() + opened() + b"".join([*deltas, tool]) + stop])[1].usage()
    assert together == fed([start(), opened(), *deltas, tool, stop])[1].usage()


def test_an_endless_event_does_not_fill_the_memory() -> None:
    meter = StreamMeter(ASKED)
    meter.feed(start() + b'event: content_block_delta\ndata: {"index":0')
    block = b"x" * (1 << 20)
    assert all(meter.feed(block).data == block for _ in range(40))
    assert len(meter._rest) <= (17 << 20)


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("error_type", ["billing_error", "api_error"])
def test_a_stream_that_breaks_at_any_byte_ends_well_formed(name: str, error_type: str) -> None:
    stream = (
        STREAMS[name]
        .replace(b"Partial ", "Pärt\u2014\U0001f600 ".encode())
        .replace(b"I will ", "Ich w\u00e4r' ".encode())
    )
    for at in range(len(stream)):
        released, meter = fed([stream[:at]])
        if meter.feed(b"").ended:
            break
        whole = released + FORMAT.ending(meter.tail(), error_type, "It broke.", "req_1")
        check_grammar(parse(whole), error_type)


def check_grammar(events: list[tuple[str, bytes]], error_type: str) -> None:
    """What a strict client relies on: known events are JSON, blocks are properly nested, the error is the end."""
    open_blocks: dict[int, str] = {}
    for name, data in events[:-1]:
        if name == "ping":
            continue
        read = json.loads(data)
        if name == "content_block_start":
            open_blocks[read["index"]] = read["content_block"]["type"]
        if name == "content_block_stop":
            del open_blocks[read["index"]]
        assert name not in ("error", "message_stop")
    assert error_type != "billing_error" or "text" not in open_blocks.values()
    name, data = events[-1]
    assert name == "error"
    assert json.loads(data)["error"]["type"] == error_type


def test_only_a_final_stop_closes_the_open_text_block() -> None:
    cut = fed([start() + opened(3) + text("so", 3)])[1].tail()
    assert b'"content_block_stop","index":3' in FORMAT.ending(cut, "billing_error", "m", "r")
    assert b"content_block_stop" not in FORMAT.ending(cut, "overloaded_error", "m", "r")


def test_a_half_written_tool_call_is_never_closed() -> None:
    cut = fed([start() + opened(1, "tool_use")])[1].tail()
    assert b"content_block_stop" not in FORMAT.ending(cut, "billing_error", "m", "r")


def test_a_character_cut_in_two_is_completed() -> None:
    for char in ("\u00e9", "\u0900", "\u2014", "\ud7ff", "\uffee", "\U00010000", "\U0010ffff"):
        for at in range(1, len(char.encode())):
            data = b'event: content_block_delta\ndata: {"x":"' + char.encode()[:at]
            released, meter = fed([data])
            (released + FORMAT.ending(meter.tail(), "api_error", "m", "r")).decode()


def test_json_keeps_its_last_byte_back_and_is_metered_whole() -> None:
    answer = {"model": "claude-served", "content": [{"type": "text"}], "stop_reason": "end_turn", "usage": USAGE}
    body = msgspec.json.encode(answer)
    for at in range(len(body) + 1):
        meter = JsonMeter(ASKED)
        released = meter.feed(body[:at]).data + meter.feed(body[at:]).data
        assert released + meter.held() == body
        assert len(meter.held()) == 1
        assert quantities(meter.usage()) == {"input": 10, "cache_read": 5, "output": 1}


def test_json_that_broke_off_is_estimated_and_an_error_is_free() -> None:
    meter = JsonMeter(ASKED)
    meter.feed(b'{"model":"claude-served","content":[{"type":"text","text":"' + b"x" * 300)
    assert meter.usage().estimated
    assert quantities(meter.usage())["output"] >= 100
    error = JsonMeter(ASKED)
    error.feed(b'{"type":"error","error":{"type":"overloaded_error","message":"m"}}')
    assert (error.usage().lines, error.error_type) == ((), "overloaded_error")


def test_the_answers_own_content_type_chooses_the_meter() -> None:
    assert isinstance(meter_for(b"text/event-stream; charset=utf-8", 200, ASKED), StreamMeter)
    assert isinstance(meter_for(b"application/json", 200, ASKED), JsonMeter)
    assert isinstance(meter_for(b"text/event-stream", 529, ASKED), JsonMeter)
