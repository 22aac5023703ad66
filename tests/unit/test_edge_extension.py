"""When a stream asks for more, for how much, and where it stops."""

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from services.edge.core import extension, lifecycle
from services.edge.core.extension import NEVER, Course
from shared.contracts.attribution import Charge
from shared.contracts.budget import Denied, Extend, Granted, TrueUp
from tests.fixtures.attempts import DENIED
from tests.fixtures.budget import Desk, ask, organisation, rule

CHARGES = (Charge(budget_id="key:K:day", period_id="2026-11-21"),)
GRANTED = Granted(
    held_input_tokens=1_000, held_output_tokens=4_096, held_nano_usd=5_096, held_input_nano_usd=1_000, charges=CHARGES,
    at_cap="cut", remaining_nano_usd=0, standings=(), admitted_at=1, owner_epoch=1,
)  # fmt: skip


def granted(output_tokens: int = 4_096, **more: Any) -> Granted:
    return msgspec.structs.replace(GRANTED, held_output_tokens=output_tokens, **more)


def denied(**more: Any) -> Denied:
    return msgspec.structs.replace(DENIED, **more)


def test_a_stream_asks_with_ten_seconds_of_output_in_hand() -> None:
    course = Course(granted(20_000), 128_000)
    course.flowed(0, 0)
    course.flowed(200, 1)  # 200 tokens a second
    end = 20_000 - 2_000  # a tenth is margin
    assert course.line == end - 10 * 200
    assert course.ask(course.line - 1) is None
    question = course.ask(course.line)
    assert question is not None
    assert (question.n, question.output_tokens) == (1, 30 * 200)


def test_a_slow_stream_asks_for_a_sensible_amount_all_the_same() -> None:
    course = Course(granted(20_000), 128_000)
    for second in range(60):
        course.flowed(second, second)
    assert course.line == 18_000 - extension.LEAST_TOKENS
    question = course.ask(course.line)
    assert question is not None
    assert question.output_tokens == extension.LEAST_TOKENS


def test_a_burst_is_not_taken_for_a_rate_that_takes_all_there_is() -> None:
    course = Course(granted(20_000), 128_000)
    course.flowed(0, 0)
    course.flowed(15_000, 1)
    question = course.ask(15_000)
    assert question is not None
    assert question.output_tokens == 30 * extension.HIGHEST_RATE


def test_a_hold_that_covers_the_request_is_left_alone() -> None:
    course = Course(granted(1_000), 1_000)
    assert (course.covered, course.line) == (True, NEVER)
    assert course.ask(5_000) is None
    assert not course.at_end(5_000)


def test_input_above_its_bound_eats_into_a_hold_that_covered_the_request() -> None:
    course = Course(granted(4_096), 4_096)
    course.counted(2_000)  # a thousand above, at a third of the price of output tokens
    assert (course.covered, course.paid) == (False, 3_096)
    question = course.ask(course.line)
    assert question is not None
    assert question.output_tokens == 1_000  # what it lacks, and no more


def test_the_last_extension_leaves_no_crumb() -> None:
    course = Course(granted(4_096), 4_096 + 3_500)
    question = course.ask(course.line)
    assert question is not None
    assert question.output_tokens == 3_500


def test_one_question_stands_open_at_a_time() -> None:
    course = Course(granted(), 128_000)
    first = course.ask(course.line)
    assert first is not None
    assert course.ask(4_000) is None
    course.answered(granted(first.output_tokens), 4_000)
    second = course.ask(course.line)
    assert second is not None
    assert second.n == 2


def test_a_stream_waits_at_its_end_while_a_question_stands_open() -> None:
    course = Course(granted(), 128_000)
    assert course.ask(course.line)
    assert course.at_end(course.line)
    course.answered(granted(3_000), 3_700)
    assert not course.at_end(3_700)


def test_a_refusal_names_the_budget_and_the_refusing_budget_says_how_it_ends() -> None:
    course = Course(granted(), 128_000)
    course.ask(course.line)
    course.answered(denied(budget_id="team:T:month", at_cap="finish"), 3_000)
    assert (course.refused_by, course.line) == ("team:T:month", NEVER)
    assert not course.at_end(100_000)


def test_a_spent_budget_is_asked_once_and_a_busy_one_again_half_way_to_the_end() -> None:
    for reason, asks in (("spent", False), ("too_late", False), ("busy", True)):
        course = Course(granted(), 128_000)
        course.ask(2_700)
        course.answered(denied(reason=reason), 2_700)
        end = 4_096 - 409
        half = 2_700 + (end - 2_700) // 2
        assert course.ask(half - 1) is None
        assert (course.ask(half) is not None) is asks
        assert course.at_end(end)


def test_an_owner_that_has_lost_the_hold_leaves_the_grants_own_rule() -> None:
    course = Course(granted(at_cap="finish"), 128_000)
    course.ask(course.line)
    course.answered(denied(budget_id="", reason="too_late", at_cap="cut"), 3_000)
    assert course.refused_by == ""
    assert not course.at_end(100_000)


def test_a_stream_that_may_finish_asks_and_goes_on_without_an_answer() -> None:
    course = Course(granted(at_cap="finish"), 128_000)
    assert course.ask(course.line)
    assert course.line == NEVER
    assert not course.at_end(100_000)


def test_output_that_nobody_sees_is_asked_for_at_once_and_whole() -> None:
    course = Course(granted(), 20_000, visible=False)
    question = course.ask(0)
    assert question is not None
    assert question.output_tokens == 20_000 - 4_096


def test_a_thought_that_nobody_sees_is_taken_for_one_that_may_use_all() -> None:
    course = Course(granted(), 20_000)
    course.flowed(50, 0.0, True)
    course.flowed(50, 9.0, True)
    assert course.ask(50) is None
    course.flowed(50, 10.0, True)
    assert course.line <= 50
    question = course.ask(50)
    assert question is not None
    assert question.output_tokens == 20_000 - 4_096
    course.answered(denied(), 50)
    assert not course.at_end(3_000), "it is not cut for what was not seen"


def test_a_grant_without_output_stops_at_the_first_token() -> None:
    course = Course(granted(0), 1_000)
    course.ask(0)
    course.answered(denied(), 0)
    assert course.line == 1


answers = st.one_of(
    st.just("all"),
    st.integers(0, 3_000),
    st.sampled_from(["spent", "busy", "too_late", "silence"]),
)


@settings(max_examples=300, deadline=None)
@given(
    held=st.integers(0, 30_000),
    most=st.integers(0, 60_000),
    input_tokens=st.integers(1, 4_000),
    chunk=st.integers(1, 60),
    rate=st.integers(1, 2_000),
    said=st.lists(answers, max_size=12),
    at_cap=st.sampled_from(["cut", "finish"]),
)
def test_no_stream_passes_its_hold_nor_ends_before_it_without_a_refusal(
    held: int, most: int, input_tokens: int, chunk: int, rate: int, said: list[str | int], at_cap: str
) -> None:
    course = Course(granted(held, at_cap=at_cap), most)
    course.counted(input_tokens)
    made, asked, seconds = 0, 0, 0.0
    script = iter(said)
    while made < (most or 20_000):
        made, seconds = made + chunk, seconds + chunk / rate
        course.flowed(made, seconds)
        if made < course.line:  # nothing that is due is missed between two looks
            assert not course.at_end(made)
            assert course.ask(made) is None
            continue
        if question := course.ask(made):
            asked += 1
            assert question.n == asked
            assert question.output_tokens > 0
            assert not most or question.output_tokens <= most - course.paid
            answer = next(script, "all")
            if answer == "silence":
                assert course.ask(made) is None
            elif isinstance(answer, int):
                course.answered(granted(min(answer, question.output_tokens)), made)
            elif answer == "all":
                course.answered(granted(question.output_tokens), made)
            else:
                course.answered(denied(reason=answer), made)
        if course.at_end(made):
            break
    if at_cap == "cut" and not course.covered:
        assert made <= max(course.paid, chunk)
    if all(answer == "all" for answer in said):
        assert made >= most, "it was cut though everything was granted"
    assert asked <= 2_000


@given(
    bound=st.integers(0, 20_000),
    counted=st.integers(1, 40_000),
    extensions=st.lists(st.integers(1, 5_000), max_size=3),
    max_tokens=st.integers(1, 8_000),
)
def test_the_edge_never_believes_in_money_that_the_owner_has_taken_back(
    bound: int, counted: int, extensions: list[int], max_tokens: int
) -> None:
    """What the hold at the owner has left for output, at its own rate, is at least what the edge lets flow."""
    desk = Desk(organisation(key=[rule("key", 100)]))
    grant = desk.grant(ask("r1", text_bytes=bound, max_tokens=max_tokens))
    desk.do(TrueUp(rid="r1", input_tokens=counted, nano_usd=0))
    extended = 0
    for n, tokens in enumerate(extensions, 1):
        answer = desk.do(Extend(rid="r1", n=n, output_tokens=tokens))
        assert isinstance(answer, Granted)
        extended += answer.held_output_tokens
    hold = desk.state.holds["r1"]
    per_token = (grant.held_nano_usd - grant.held_input_nano_usd) / grant.held_output_tokens
    left = hold.nano_usd - hold.input_nano_usd
    paid = lifecycle.output_left(grant, counted, extended)
    assert paid * per_token <= max(0, left)
    assert paid >= min(max(0, left) / per_token - 1, grant.held_output_tokens + extended)


def test_a_stream_waits_for_an_open_question_hardly_longer_than_what_the_provider_goes_on_making_is_paid() -> None:
    course = Course(granted(4_096), 32_000)
    assert course.grace_seconds(3_600, 40.0) == 1.0
    assert 0.27 < course.grace_seconds(3_600, 2.0) < 0.28
    assert course.grace_seconds(4_200, 0.2) == 0.25
