"""Large JSON answers: metered from their ends, to the token, and held in little memory."""

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.edge.core.collected import HEAD_BYTES, TAIL_BYTES, WHOLE_BYTES, Collected
from services.edge.core.meter import JsonMeter
from services.edge.core.usage import Usage
from tests.fixtures.exchanges import ASKED

USAGE = {"input_tokens": 1234, "output_tokens": 5678, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}


def answer(size: int, *, stop_reason: str = "end_turn", last: object = "") -> bytes:
    """A message of about so many bytes. last: the input of a tool that it asks for at its end."""
    content: list[object] = [{"type": "text", "text": 'é"' * (size // 8)}]
    content.append({"type": "tool_use", "id": "t", "name": "n", "input": last})
    message = {"id": "msg", "type": "message", "model": "claude-sonnet-5-5", "content": content}
    return json.dumps(message | {"stop_reason": stop_reason, "stop_sequence": None, "usage": USAGE}).encode()


def metered(data: bytes, step: int = 70_000) -> Usage:
    meter = JsonMeter(ASKED)
    for start in range(0, len(data), step):
        meter.feed(data[start : start + step])
    return meter.usage()


@pytest.mark.parametrize("last", ["", {"usage": {"output_tokens": 1}, "stop_reason": "x"}, [{"usage": 1}] * 3000])
@pytest.mark.parametrize("stop_reason", ["end_turn", "refusal"])
def test_a_large_answer_is_metered_as_a_small_one_is(last: object, stop_reason: str) -> None:
    large = answer(3 * WHOLE_BYTES, stop_reason=stop_reason, last=last)
    assert len(large) > WHOLE_BYTES
    assert metered(large) == metered(answer(1000, stop_reason=stop_reason))


def test_a_large_answer_that_breaks_off_is_estimated() -> None:
    assert metered(answer(3 * WHOLE_BYTES)[:-1]).estimated
    assert metered(answer(3 * WHOLE_BYTES)[: 2 * WHOLE_BYTES]).estimated


def test_a_large_answer_without_figures_is_estimated_by_its_size() -> None:
    assert metered(b'{"x":"' + b"y" * 2 * WHOLE_BYTES + b'"}').estimated


@given(st.lists(st.integers(1, 400_000), min_size=1, max_size=30))
def test_however_it_is_split_little_is_held(sizes: list[int]) -> None:
    collected = Collected()
    for size in sizes:
        collected.add(b" " * size)
        held = len(collected._head) + len(collected._tail) + sum(map(len, collected._parts))
        assert held <= max(min(collected.size, WHOLE_BYTES), HEAD_BYTES + 2 * TAIL_BYTES)
    assert sys.getsizeof(collected._tail) < 6 * TAIL_BYTES
