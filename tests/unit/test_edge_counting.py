"""When the provider is asked to count a prompt, with what body, and what the count changes."""

import json
from typing import Any

import msgspec
import pytest

from services.edge.core import counting
from services.edge.core.facts import Facts, read_facts
from shared.contracts.budget import Bound, Denied
from shared.errors import Unavailable
from tests.fixtures.attempts import DENIED
from tests.fixtures.exchanges import MESSAGES, recorded

CENT = 10_000_000


def facts(text: int = 200_000, **more: Any) -> Facts:
    body = {"model": "claude-x", "max_tokens": 9, "messages": [{"role": "user", "content": "x" * text}]}
    return msgspec.structs.replace(read_facts(json.dumps(body).encode(), {}), **more)


def denied(**more: Any) -> Denied:
    """Half of the need is left; the bound is 0.6 tokens a byte."""
    values = {
        "limit_nano_usd": 100 * CENT,
        "spent_nano_usd": 90 * CENT,
        "need_nano_usd": 20 * CENT,
        "input_bound": 121_000,
    }
    return msgspec.structs.replace(DENIED, **(values | more))


def test_a_prompt_that_only_its_bound_keeps_out_is_counted() -> None:
    assert counting.is_worth_asking(denied(), facts())


@pytest.mark.parametrize(
    ("why", "fields"),
    [
        ("calls in flight hold it", {"reason": "busy"}),
        ("it has no bound", {"reason": "unboundable"}),
        ("nothing is left", {"spent_nano_usd": 100 * CENT}),
        ("the need fits: the conversation was cut a moment ago", {"need_nano_usd": 10 * CENT}),
        ("no text is so short in tokens that it would fit", {"need_nano_usd": 51 * CENT}),
        ("an edge's own block, which tells no need", {"need_nano_usd": 0, "input_bound": 0}),
    ],
)
def test_other_refusals_are_not_asked_about(why: str, fields: dict[str, Any]) -> None:
    assert not counting.is_worth_asking(denied(**fields), facts()), why


def test_small_and_unbounded_and_counted_prompts_are_not_asked_about() -> None:
    assert not counting.is_worth_asking(denied(), facts(text=3_000))
    endless = Bound(meter="unboundable", quantity=10)
    assert not counting.is_worth_asking(denied(), facts(bounds=(*facts().bounds, endless)))
    assert not counting.is_worth_asking(denied(), counting.counted(facts(), 30_000)), "never twice"


@pytest.mark.parametrize("name", MESSAGES)
def test_the_question_is_the_requests_own_input_and_nothing_else(name: str) -> None:
    _, raw, body = recorded(name)
    asked = json.loads(counting.question(raw, body["model"]))
    assert asked == {field: body[field] for field in body if field in counting.COUNTED}
    assert not asked.keys() & {"max_tokens", "stream", "metadata", "temperature", "context_management"}


def test_values_pass_byte_for_byte_and_the_model_is_the_one_that_will_serve() -> None:
    raw = (
        b'{"messages": [{"role": "user",  "content": "\\u00e9\\n"}], "stream":true, "model":"asked", "system": "a  b"}'
    )
    asked = counting.question(raw, "served")
    assert b'[{"role": "user",  "content": "\\u00e9\\n"}]' in asked
    assert json.loads(asked)["model"] == "served"


def test_the_question_goes_beside_the_messages_with_the_same_query() -> None:
    assert counting.path("/v1/messages?beta=true") == "/v1/messages/count_tokens?beta=true"
    assert counting.path("/v1/messages") == "/v1/messages/count_tokens"


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, b"{}"), (200, b"<html>"), (200, b'{"input_tokens": 0}'), (404, b'{"input_tokens": 5}'), (429, b"{}")],
)
def test_whatever_is_no_count_is_none(status: int, body: bytes) -> None:
    with pytest.raises(Unavailable):
        counting.answer(status, body)


def test_a_count_takes_the_place_of_text_images_and_pages_but_not_of_searches() -> None:
    sizes = {"text_bytes": 9_000, "image": 2, "page": 3, "web_search": 4}
    bounds = tuple(Bound(meter=meter, quantity=quantity) for meter, quantity in sizes.items())
    found = counting.counted(facts(bounds=bounds), counting.answer(200, b'{"input_tokens": 10000, "new": 1}'))
    assert {bound.meter: bound.quantity for bound in found.bounds} == {"input_tokens": 10_200, "web_search": 4}
    assert counting.bound_of(counting.counted(facts(), 10)) == 74
    assert found.input_estimate == 10_000
