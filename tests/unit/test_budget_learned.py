"""What closed calls teach: the usual output, and what a byte of a prompt is worth."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from services.budget.core.learned import KNOWN_CALLS, Histogram, bucket_of, largest_in
from services.budget.core.pace import WINDOW_MICROS
from services.budget.core.snapshot import capture, restore, rid_parts
from shared.contracts.budget import Bound, Granted
from shared.contracts.edge import Line
from shared.contracts.pricing import PricedLine, UsagePriced
from shared.contracts.streams import Position
from tests.fixtures.budget import MODEL, USD, Desk, ask, organisation, rule, usage


def call(at: Desk, rid: str, output: int, prompt: int = 500, text_bytes: int = 1_000, **more: object) -> None:
    """One call that made this much output of a prompt of that many tokens."""
    at.grant(ask(rid, "key", text_bytes, 32_000, True, **more))
    at.close(closed(rid, output, prompt))


def closed(rid: str, output: int, prompt: int = 500, kind: str = "settled", **more: object) -> UsagePriced:
    lines = tuple(
        PricedLine(
            line=Line(meter=meter, quantity=quantity, model=MODEL),
            rate_id="round",
            list_pico_usd=0,
            cost_pico_usd=0,
            charge_pico_usd=0,
        )
        for meter, quantity in (("cache_read", prompt - 100), ("input", 100), ("output", output))
    )
    return msgspec.structs.replace(usage(rid, kind, 1_000, "key", (), **more), lines=lines)


def taught(calls: int = KNOWN_CALLS, limit: float = 100, hold: str = "adaptive") -> Desk:
    at = Desk(organisation(key=[rule("key", limit, hold=hold)]))
    for n in range(calls):
        call(at, f"c{n}", 600 + n % 100)
    return at


def test_a_stream_holds_its_bound_until_enough_is_known_and_then_what_is_usual() -> None:
    at = taught(KNOWN_CALLS - 1)
    assert at.grant(ask("r1", max_tokens=32_000)).held_output_tokens == 32_000
    call(at, "c", 600)
    assert 694 <= at.grant(ask("r2", max_tokens=32_000)).held_output_tokens <= 720


def test_what_does_not_stream_cannot_be_extended_and_holds_its_bound() -> None:
    assert taught().grant(ask("r1", max_tokens=32_000, stream=False)).held_output_tokens == 32_000


def test_a_budget_that_asks_for_the_bound_gets_it() -> None:
    assert taught(hold="bound").grant(ask("r1", max_tokens=32_000)).held_output_tokens == 32_000


def test_under_hold_expected_nothing_need_be_known() -> None:
    assert taught(0, hold="expected").grant(ask("r1", max_tokens=32_000)).held_output_tokens == 4_096


def test_another_key_of_the_team_profits_from_what_the_team_has_taught() -> None:
    assert taught().grant(ask("r1", key="key2", max_tokens=32_000)).held_output_tokens < 1_000


def test_a_small_usual_output_still_holds_enough_to_begin_with() -> None:
    at = Desk(organisation(key=[rule("key", 100)]))
    for n in range(KNOWN_CALLS):
        call(at, f"c{n}", 3)
    assert at.grant(ask("r1", max_tokens=32_000)).held_output_tokens == 256
    assert at.grant(ask("r2", max_tokens=20)).held_output_tokens == 20


def test_a_cut_call_counts_as_all_that_it_asked_for() -> None:
    at = taught()
    for n in range(40):
        at.grant(ask(f"cut{n}", max_tokens=32_000))
        at.close(closed(f"cut{n}", 700, outcome="cut", estimated=True))
    assert at.grant(ask("r1", max_tokens=32_000)).held_output_tokens == 32_000


def test_what_broke_off_teaches_nothing() -> None:
    at = taught(KNOWN_CALLS - 1)
    for kind, outcome in (("settled", "client_gone"), ("void", "ok"), ("recovered", "ok")):
        at.grant(ask(f"{kind} one", max_tokens=32_000))
        at.close(closed(f"{kind} one", 1, kind=kind, outcome=outcome, estimated=kind != "void"))
    assert at.grant(ask("r1", max_tokens=32_000)).held_output_tokens == 32_000


def test_a_byte_of_prompt_is_held_at_what_it_was_worth_before() -> None:
    at = Desk(organisation(key=[rule("key", 100)]))
    for n in range(KNOWN_CALLS):
        call(at, f"c{n}", 600, prompt=25_000, text_bytes=100_000)
    assert at.grant(ask("r1", text_bytes=100_000)).held_input_tokens == 1_000 + 28_000  # 25 % and a tenth, rounded up
    counted = ask("r2", bounds=(Bound(meter="input_tokens", quantity=26_000),))
    assert at.grant(counted).held_input_tokens == 26_000


def test_short_prompts_and_those_with_images_teach_nothing_about_bytes() -> None:
    at = Desk(organisation(key=[rule("key", 1_000)]))
    for n in range(KNOWN_CALLS):
        call(at, f"s{n}", 600, prompt=1_000, text_bytes=4_000)
        image = (Bound(meter="text_bytes", quantity=5_000), Bound(meter="image", quantity=1))
        call(at, f"i{n}", 600, prompt=6_000, text_bytes=5_000, bounds=image)
    assert at.grant(ask("r1", text_bytes=100_000)).held_input_tokens == 61_000


def test_a_byte_is_never_held_at_more_than_a_token() -> None:
    at = Desk(organisation(key=[rule("key", 1_000)]))
    for n in range(KNOWN_CALLS):
        call(at, f"c{n}", 600, prompt=9_900, text_bytes=10_000)
    assert at.grant(ask("r1", text_bytes=100_000)).held_input_tokens == 101_000


def test_what_was_learned_is_in_the_snapshot() -> None:
    at = taught()
    kept = capture(at.state, Position(log_id="l", seq=1), b"", Position())
    again = restore(kept.head, rid_parts(kept.settled))
    assert again.learned == at.state.learned


def test_the_most_that_a_hold_can_miss_is_asked_for_later() -> None:
    """The hold names the budget that could refuse more, although it had room for the bound."""
    assert taught().grant(ask("r1", max_tokens=32_000)).limited_by == "key:key:month"
    assert taught(limit=1_000).booked("key:key:month")[0] < USD


@given(st.integers(0, 10_000_000))
def test_a_bucket_holds_its_tokens_and_overstates_them_by_a_sixteenth_at_most(tokens: int) -> None:
    most = largest_in(bucket_of(tokens))
    assert tokens <= most <= tokens + tokens // 16
    assert bucket_of(most) == bucket_of(tokens)
    assert bucket_of(most + 1) == bucket_of(tokens) + 1


@given(st.lists(st.integers(0, 50_000), min_size=KNOWN_CALLS, max_size=400), st.sampled_from((500, 950, 999)))
def test_a_quantile_is_never_below_that_of_all_calls_and_hardly_above(tokens: list[int], per_mille: int) -> None:
    histogram = Histogram()
    for each in tokens:
        histogram.add(bucket_of(each), per_mille)
    looked = max(KNOWN_CALLS, len(tokens) - len(tokens) % 16)  # the last look was then
    seen = sorted(tokens[:looked])
    exact = seen[len(seen) - 1 - len(seen) * (1_000 - per_mille) // 1_000]
    assert exact <= largest_in(histogram.at) <= exact + exact // 16


def test_old_calls_fade() -> None:
    histogram = Histogram()
    for _ in range(20_000):
        histogram.add(bucket_of(100), 950)
    for _ in range(11_000):
        histogram.add(bucket_of(30_000), 950)
    assert histogram.total < 20_000
    assert largest_in(histogram.at) >= 30_000


def test_many_that_begin_at_once_are_let_in_as_fast_as_the_first_show_what_they_are() -> None:
    """Held at 700 tokens each, all fifty fit; each may make 32,000, and of those the budget pays for six."""
    at = taught(limit=2)
    answers = [at.do(ask(f"r{n}", max_tokens=32_000)) for n in range(50)]
    begun = sum(isinstance(answer, Granted) for answer in answers)
    assert begun == 6
    at.now += WINDOW_MICROS
    at.tick()
    assert sum(isinstance(late.answer, Granted) for late in at.late) == 6


def test_one_alone_never_waits_for_what_it_may_ask_for_later() -> None:
    at = taught(limit=0.1)
    assert at.grant(ask("r1", max_tokens=32_000)).held_output_tokens < 1_000


def test_who_asks_for_what_is_expected_alone_is_not_slowed_down() -> None:
    at = taught(limit=2, hold="expected")
    assert all(isinstance(at.do(ask(f"r{n}", max_tokens=32_000)), Granted) for n in range(50))
