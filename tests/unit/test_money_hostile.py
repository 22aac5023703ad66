"""Money against a hostile provider or client: no figure of theirs is free, negative, or too large for the ledger."""

from typing import Any

import msgspec
import pytest

from services.edge.core import usage
from services.edge.core.bounds import MOST_SEARCHES
from services.edge.core.facts import read_facts
from services.edge.core.meter import JsonMeter, StreamMeter
from services.edge.core.usage import Asked, Usage
from services.pricing.stores import read_book
from shared.contracts.edge import METERS, Line
from shared.contracts.pricing import PricedLine
from shared.rates import Book, Overrides, Terms, price
from tests.fixtures.exchanges import event

ASKED = Asked(model="claude-opus-5-5", input_estimate=700, most_output_tokens=400)
HUGE = 10**30
AMOUNT = 2**63
AT = 1_795_000_000_000_000


def whole(counts: object, text: str = "x" * 300, **more: object) -> Usage:
    """As the meter of an answer without stream sees it."""
    meter = JsonMeter(ASKED)
    content = [{"type": "text", "text": text}]
    answer = {"model": "claude-opus-5-5", "content": content, "stop_reason": "end_turn", "usage": counts} | more
    meter.feed(msgspec.json.encode(answer))
    return meter.usage()


def streamed(counts: dict[str, Any], first: dict[str, Any] | None = None, text: str = "x" * 300) -> Usage:
    """As the meter of a stream sees it. first: the counts of message_start."""
    begun = {"input_tokens": 10, "output_tokens": 1} if first is None else first
    meter = StreamMeter(ASKED)
    meter.feed(
        event("message_start", message={"model": "claude-opus-5-5", "usage": begun})
        + event("content_block_start", index=0, content_block={"type": "text"})
        + event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})
        + event("message_delta", delta={"stop_reason": "end_turn"}, usage=counts)
        + event("message_stop")
    )
    return meter.usage()


def output(found: Usage) -> int:
    return sum(line.quantity for line in found.lines if line.meter in ("output", "thinking"))


NO_COUNT = ["500", 500.0, -500, HUGE, True, [500], {"n": 500}]


@pytest.mark.parametrize("value", NO_COUNT, ids=repr)
def test_output_that_is_no_count_is_estimated_and_flagged_and_never_free(value: object) -> None:
    for found in (whole({"input_tokens": 10, "output_tokens": value}), streamed({"output_tokens": value})):
        assert output(found) >= 100
        assert found.estimated
        assert "output_tokens" in found.unknown_counters


@pytest.mark.parametrize("value", NO_COUNT, ids=repr)
@pytest.mark.parametrize("name", ["input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"])
def test_input_that_is_no_count_is_estimated_and_flagged_and_never_free(name: str, value: object) -> None:
    counts = {"input_tokens": 3, "output_tokens": 200} | {name: value}
    for found in (whole(counts), streamed({"output_tokens": 200}, counts)):
        assert sum(line.quantity for line in found.lines if line.meter == "input") >= 700
        assert found.estimated
        assert name in found.unknown_counters


@pytest.mark.parametrize("counts", [{}, {"input_tokens": 10}, {"output_tokens": None}], ids=repr)
def test_a_report_without_its_main_counts_is_an_estimate(counts: dict[str, Any]) -> None:
    found = whole(counts)
    assert found.estimated
    assert output(found) >= 100


def test_the_first_count_of_a_stream_is_never_taken_for_its_last() -> None:
    """message_start says one token of output; what follows without a figure is not free."""
    meter = StreamMeter(ASKED)
    meter.feed(
        event("message_start", message={"model": "m", "usage": {"input_tokens": 10, "output_tokens": 1}})
        + event("content_block_delta", index=0, delta={"type": "text_delta", "text": "x" * 300})
        + event("message_delta", delta={"stop_reason": "end_turn"})
        + event("message_stop")
    )
    assert meter.usage().estimated
    assert output(meter.usage()) >= 100


def test_a_count_of_an_iteration_that_is_none_is_estimated_too() -> None:
    iterations = [{"type": "message", "input_tokens": 10, "output_tokens": "9"}]
    found = whole({"input_tokens": 10, "output_tokens": 200, "iterations": iterations})
    assert found.estimated
    assert output(found) >= 200


def test_the_largest_count_fits_every_integer_of_the_ledger_at_the_dearest_price() -> None:
    book = Book(read_book())
    terms = Terms(at=AT, provider_kind="anthropic", unpriced="deny")
    for model in ("claude-opus-4-1", "claude-fable-5-1", "nobody-knows"):
        lines = tuple(
            Line(meter=meter, quantity=usage.MOST, model=model, speed="fast", geo="us", region="eu")
            for meter in (*METERS, "quantum")
        )
        for line in price(lines, terms, book, Overrides()).lines:
            assert 0 <= line.list_pico_usd < AMOUNT
            msgspec.msgpack.encode(line)


def test_a_usage_object_of_any_size_leaves_a_record_that_the_broker_takes() -> None:
    one = {"type": "message", "model": "m" * 10_000, "input_tokens": 1, "output_tokens": 1, "speed": "s" * 10_000}
    counts = {
        "input_tokens": 10,
        "output_tokens": 200,
        "iterations": [one] * 5_000,
        "service_tier": "t" * 100_000,
        **{f"odd_{n}_" + "x" * 500: 1 for n in range(5_000)},
    }
    for found in (whole(counts, model="m" * 2_000_000), streamed(counts)):
        priced = [
            PricedLine(line=line, rate_id="r" * 40, list_pico_usd=AMOUNT - 1, cost_pico_usd=1, charge_pico_usd=1)
            for line in found.lines
        ]
        # a correction names the lines of both records
        assert 2 * len(msgspec.msgpack.encode(priced)) + len(msgspec.msgpack.encode(found)) < 900_000
        assert output(found) >= 200


def test_as_many_iterations_as_a_record_can_name_are_billed() -> None:
    one = {"type": "message", "model": "m" * 500, "input_tokens": 1, "output_tokens": 1}
    found = whole({"input_tokens": 10, "output_tokens": 2, "iterations": [one] * usage.MOST_ITERATIONS})
    assert not found.estimated
    assert len(found.lines) == 2 * usage.MOST_ITERATIONS
    assert len(msgspec.msgpack.encode(found)) < 400_000


def test_an_error_before_the_answer_began_is_free() -> None:
    meter = StreamMeter(ASKED)
    meter.feed(event("ping") + event("error", error={"type": "overloaded_error", "message": "m"}))
    assert meter.usage() == usage.NOTHING


def test_an_error_after_the_answer_began_costs_what_was_reported() -> None:
    meter = StreamMeter(ASKED)
    meter.feed(event("message_start", message={"model": "m", "usage": {"input_tokens": 10, "output_tokens": 1}}))
    meter.feed(event("error", error={"type": "overloaded_error", "message": "m"}))
    assert {line.meter: line.quantity for line in meter.usage().lines} == {"input": 10, "output": 1}


@pytest.mark.parametrize("times", [1, 400])
def test_no_wish_of_a_client_for_searches_is_too_large_for_the_owner(times: int) -> None:
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": HUGE}
    body = {"model": "claude-opus-5-5", "max_tokens": 100, "messages": [], "tools": [search] * times}
    (bound,) = (b for b in read_facts(msgspec.json.encode(body), {}).bounds if b.meter == "web_search")
    assert bound.quantity == MOST_SEARCHES


def test_what_is_kept_of_the_provider_s_own_object_can_always_be_written() -> None:
    found = whole({"input_tokens": HUGE, "output_tokens": 200, "deep": {"a": [HUGE, "x" * 100]}})
    assert msgspec.json.decode(found.provider_usage)["input_tokens"] == HUGE
