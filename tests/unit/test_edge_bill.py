"""What the edge meters is what the provider bills: the simulator's own account, line by line."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from services.edge.core.meter import JsonMeter, StreamMeter
from services.simulator.core import frames, usage
from services.simulator.core.frames import Message, Thinking
from services.simulator.core.usage import Account, Usage
from tests.fixtures.exchanges import ASKED

counts = st.integers(0, 200_000)


@st.composite
def accounts(draw: st.DrawFn) -> Account:
    def one(kind: str = "message", model: str = "") -> Usage:
        output = draw(st.integers(1, 5_000))
        return Usage(
            input_tokens=draw(counts),
            cache_read=draw(counts),
            cache_5m=draw(counts),
            cache_1h=draw(counts),
            output_tokens=output,
            thinking=draw(st.integers(0, output)) if kind == "whole" else 0,
            searches=draw(st.integers(0, 3)) if kind == "whole" else 0,
            kind=kind,
            model=model,
        )

    more = draw(st.sampled_from([(), ("compaction",), ("message", "advisor_message")]))
    return Account(
        whole=one("whole"),
        model="claude-served",
        iterations=tuple(one(kind, "claude-other" if kind == "advisor_message" else "") for kind in more),
        speed=draw(st.sampled_from(["standard", "fast"])),
        geo=draw(st.sampled_from(["", "us", "global"])),
        tier=draw(st.sampled_from(["standard", "priority"])),
        no_split=draw(st.booleans()),
    )


def answer(account: Account, deltas: int) -> Message:
    thought = account.whole.thinking
    return Message(
        id="msg_1",
        account=account,
        stop_reason="end_turn",
        text="Hello there.",
        text_tokens=account.whole.output_tokens - thought,
        thinking=Thinking(tokens=thought) if thought else None,
        searches=account.whole.searches,
        deltas=deltas,
    )


@settings(max_examples=150, deadline=None)
@given(accounts(), st.integers(1, 4), st.lists(st.integers(1, 4000), max_size=6))
def test_a_stream_is_metered_as_it_is_billed(account: Account, deltas: int, cuts: list[int]) -> None:
    stream = b"".join(frame.data for frame in frames.stream(answer(account, deltas)))
    meter = StreamMeter(ASKED)
    for left, right in pairwise([0, *sorted({min(cut, len(stream)) for cut in cuts}), len(stream)]):
        meter.feed(stream[left:right])
    found = meter.usage()
    assert found.lines == usage.lines(account)
    assert (found.estimated, found.unknown_counters, found.response_model) == (False, (), "claude-served")


@settings(max_examples=60, deadline=None)
@given(accounts())
def test_a_whole_answer_is_metered_as_it_is_billed(account: Account) -> None:
    meter = JsonMeter(ASKED)
    meter.feed(frames.whole(answer(account, 1)))
    assert meter.usage().lines == usage.lines(account)
