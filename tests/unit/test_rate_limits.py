"""Rate limits in the owner's decision: which count, what counts, and what a refusal says."""

import msgspec
import pytest

from services.budget.core.rate_limits import tokens_asked
from services.budget.core.step import Expire
from shared.contracts.budget import Bound, Reserve, Withdraw
from shared.contracts.config import ModelRateLimits, RateLimits
from shared.contracts.edge import Line
from shared.contracts.pricing import PricedLine, UsagePriced
from tests.fixtures.budget import DAY, HOUR, MODEL, NOW, SECOND, Desk, ask, rule, usage
from tests.fixtures.rate_limits import limited

MINUTE = 60 * SECOND
LENGTHS = {"minute": MINUTE, "hour": HOUR, "day": DAY}


def used(rid: str, **tokens: int) -> UsagePriced:
    """A close with these tokens by meter."""
    lines = tuple(
        PricedLine(
            line=Line(meter=meter, quantity=quantity, model=MODEL),
            rate_id="",
            list_pico_usd=0,
            cost_pico_usd=0,
            charge_pico_usd=0,
        )
        for meter, quantity in tokens.items()
    )
    return msgspec.structs.replace(usage(rid, nano_usd=0), lines=lines)


@pytest.mark.parametrize("scope", ["org", "customer", "team", "key"])
@pytest.mark.parametrize("period", LENGTHS)
def test_each_scope_admits_exactly_its_number_of_requests(scope: str, period: str) -> None:
    limits = msgspec.structs.replace(RateLimits(), **{f"requests_per_{period}": 3})
    desk = Desk(limited(key_budgets=(), **{scope: limits}))
    for number in range(3):
        desk.grant(ask(f"r{number}"))
        desk.close(usage(f"r{number}"))
        desk.now += LENGTHS[period] // 60
    denied = desk.deny(ask("r3"))
    uid = {"customer": "cus"}.get(scope, scope)
    assert (denied.reason, denied.budget_id) == ("rate_limited", f"{scope}:{uid}:requests_per_{period}")
    assert (denied.rate_limit, denied.rate_most, denied.rate_used) == (f"requests_per_{period}", 3, 3)
    assert denied.resets_at == NOW + LENGTHS[period]
    assert denied.retry_after_s == LENGTHS[period] // SECOND * 57 // 60
    assert denied.contact == "platform@acme.example"


def test_a_request_fits_at_the_moment_it_was_told_and_not_before() -> None:
    desk = Desk(limited(key=RateLimits(requests_per_minute=1)))
    desk.now += 123_457
    desk.grant(ask("r1"))
    desk.now += 1
    denied = desk.deny(ask("r2"))
    assert denied.retry_after_s == 60
    desk.now = denied.resets_at - 1
    assert desk.deny(ask("r2")).retry_after_s == 1
    desk.now = denied.resets_at
    desk.grant(ask("r2"))


def test_a_minutes_limit_never_makes_a_client_wait_so_long_that_it_gives_up() -> None:
    desk = Desk(limited(key=RateLimits(requests_per_minute=20)))
    for number in range(20):
        desk.now += 40_000
        desk.grant(ask(f"r{number}"))
    assert desk.deny(ask("late")).retry_after_s <= 60


def test_all_limits_on_the_path_count_and_the_longest_wait_is_told() -> None:
    desk = Desk(limited(team=RateLimits(requests_per_hour=1), key=RateLimits(requests_per_minute=1)))
    desk.grant(ask("r1"))
    assert desk.deny(ask("r2")).budget_id == "team:team:requests_per_hour"
    desk.now += MINUTE
    assert desk.deny(ask("r2")).retry_after_s == 3_540
    assert desk.deny(ask("r3", key="key2")).budget_id == "team:team:requests_per_hour"


def test_a_key_beside_a_limited_one_is_not_limited_and_leaves_no_trace() -> None:
    desk = Desk(limited(key=RateLimits(requests_per_minute=1, tokens_per_day=9_000, concurrent_requests=1)))
    for number in range(5):
        desk.grant(ask(f"r{number}", key="key2"))
    assert desk.state.rates == type(desk.state.rates)()
    desk.grant(ask("mine"))


def test_further_attempts_of_a_client_request_are_no_further_requests() -> None:
    desk = Desk(limited(key=RateLimits(requests_per_minute=1, concurrent_requests=1)))
    desk.grant(ask("a1", request_id="q"))
    desk.grant(ask("a2", request_id="q", attempt=2, replaces_rid="a1"))
    desk.close(usage("a1", "void", 0))
    desk.close(usage("a2", "void", 0))
    desk.now += 20 * SECOND
    desk.grant(ask("a3", request_id="q", attempt=3))
    desk.grant(ask("a3", request_id="q", attempt=3))
    assert desk.deny(ask("other")).rate_used == 1


def test_an_attempt_whose_place_was_taken_waits_like_all_others() -> None:
    """Otherwise more calls than the limit would be upstream at once."""
    desk = Desk(limited(key=RateLimits(concurrent_requests=1)))
    desk.grant(ask("a1", request_id="q"))
    desk.close(usage("a1", "void", 0))
    desk.grant(ask("b1", request_id="other"))
    assert desk.deny(ask("a2", request_id="q", attempt=2)).rate_limit == "concurrent_requests"


@pytest.mark.parametrize("end", ["settled", "void", "recovered", "withdrawn", "expired"])
def test_a_place_is_free_again_however_the_call_ended(end: str) -> None:
    desk = Desk(limited(key=RateLimits(concurrent_requests=2)))
    desk.grant(ask("r1"))
    desk.grant(ask("r2"))
    denied = desk.deny(ask("r3"))
    assert (denied.rate_used, denied.rate_most) == (2, 2)
    assert 1 <= denied.retry_after_s <= 5
    match end:
        case "withdrawn":
            desk.do(Withdraw(rid="r1", edge="e1", epoch=1))
        case "expired":
            desk.do(Expire("r1"))
        case _:
            desk.close(usage("r1", end))
    desk.grant(ask("r3"))
    desk.deny(ask("r4"))
    if end != "withdrawn":
        desk.close(usage("r1"))  # late, or again
    desk.deny(ask("r4"))


def test_tokens_are_counted_by_estimate_and_then_by_what_they_were() -> None:
    desk = Desk(limited(key=RateLimits(tokens_per_minute=10_000)))
    desk.grant(ask("r1", text_bytes=15_000, max_tokens=1_000))  # 5,000 + 1,000
    denied = desk.deny(ask("r2", text_bytes=15_000, max_tokens=1_000))
    assert (denied.rate_limit, denied.rate_used, denied.rate_asked) == ("tokens_per_minute", 6_000, 6_000)
    assert denied.retry_after_s == 60
    desk.close(used("r1", input=10, cache_read=3_000, cache_write_5m=500, output=400, thinking=90, web_search=7))
    desk.grant(ask("r2", text_bytes=15_000, max_tokens=1_000))
    desk.close(used("r2", input=5_990))
    assert desk.deny(ask("r3", text_bytes=3, max_tokens=10)).rate_used == 9_990


def test_what_a_long_answer_took_above_its_estimate_counts_when_it_is_known() -> None:
    desk = Desk(limited(key=RateLimits(tokens_per_minute=10_000)))
    desk.grant(ask("r1", max_tokens=32_000))
    desk.now += 5 * MINUTE
    desk.close(used("r1", output=14_096))
    denied = desk.deny(ask("r2", max_tokens=1))
    assert (denied.rate_used, denied.retry_after_s) == (10_000, 60)


def test_what_is_given_back_late_does_not_free_what_others_use() -> None:
    desk = Desk(limited(key=RateLimits(tokens_per_minute=5_000)))
    desk.grant(ask("r1", max_tokens=4_000))
    desk.now += MINUTE
    desk.grant(ask("r2", max_tokens=4_000))
    desk.close(used("r1", output=1))
    assert desk.deny(ask("r3", max_tokens=4_000)).rate_used == 4_000


def test_a_fallback_takes_over_the_tokens_of_the_attempt_before_it() -> None:
    desk = Desk(limited(key=RateLimits(tokens_per_minute=5_000)))
    desk.grant(ask("a1", max_tokens=4_000, request_id="q"))
    desk.deny(ask("b1", max_tokens=4_000))
    desk.grant(ask("a2", max_tokens=4_000, request_id="q", attempt=2, replaces_rid="a1"))
    desk.close(usage("a1", "void", 0))
    assert desk.deny(ask("b1", max_tokens=4_000)).rate_used == 4_000
    desk.close(used("a2", output=10))
    desk.grant(ask("b1", max_tokens=4_000))


def test_a_request_above_its_limit_by_itself_is_told_that_no_waiting_helps() -> None:
    desk = Desk(limited(key=RateLimits(tokens_per_day=1_000, requests_per_minute=1)))
    denied = desk.deny(ask(text_bytes=30_000))
    assert (denied.rate_limit, denied.rate_asked, denied.rate_most) == ("tokens_per_day", 11_000, 1_000)
    assert (denied.resets_at, denied.retry_after_s) == (0, 0)


def test_a_limit_for_some_models_counts_those_alone() -> None:
    opus = {"claude-opus-*": ModelRateLimits(requests_per_minute=1), "claude-*": ModelRateLimits(requests_per_minute=2)}
    desk = Desk(limited(team=RateLimits(requests_per_minute=4, models=opus)))

    def asked(rid: str, model: str) -> Reserve:
        return ask(rid, model=model)

    desk.grant(asked("o1", "claude-opus-4-8"))
    assert desk.deny(asked("o2", "claude-opus-5-5")).budget_id == "team:team:requests_per_minute:claude-opus-*"
    desk.grant(asked("s1", MODEL))
    assert desk.deny(asked("s2", MODEL)).budget_id == "team:team:requests_per_minute:claude-*"
    desk.grant(asked("x1", "other"))
    desk.grant(asked("x2", "other"))
    assert desk.deny(asked("x3", "other")).budget_id == "team:team:requests_per_minute"


def test_a_pattern_fits_a_model_with_and_without_its_date() -> None:
    desk = Desk(limited(key=RateLimits(models={"claude-haiku-4-5": ModelRateLimits(requests_per_day=1)})))
    desk.grant(ask("r1", model="claude-haiku-4-5-20251001"))
    desk.deny(ask("r2", model="claude-haiku-4-5"))


def test_a_refused_request_has_not_counted() -> None:
    desk = Desk(limited(key=RateLimits(requests_per_minute=5), key_budgets=[rule("key", 0)]))
    for number in range(10):
        assert desk.deny(ask(f"r{number}")).reason == "spent"
    assert desk.state.rates.windows == {}


def test_a_limit_is_told_before_a_spent_budget() -> None:
    desk = Desk(limited(key=RateLimits(tokens_per_minute=1), key_budgets=[rule("key", 0)]))
    assert desk.deny(ask()).reason == "rate_limited"


def test_a_limit_that_is_raised_is_in_force_at_once_and_one_that_is_new_counts_from_then_on() -> None:
    desk = Desk(limited(key=RateLimits(requests_per_minute=1)))
    desk.grant(ask("r1"))
    desk.deny(ask("r2"))
    desk.govern(limited(key=RateLimits(requests_per_minute=2, requests_per_day=2)))
    desk.grant(ask("r2"))
    desk.now += MINUTE
    desk.grant(ask("r3"))
    assert desk.deny(ask("r4")).rate_limit == "requests_per_day"


@pytest.mark.parametrize(
    ("bounds", "input_bytes", "max_tokens", "tokens"),
    [
        ((), 300, 10, 110),
        ((Bound(meter="text_bytes", quantity=301),), 9_000, 10, 111),
        ((Bound(meter="text_bytes", quantity=300), Bound(meter="image", quantity=2)), 9_000, 10, 3_310),
        ((Bound(meter="text_bytes", quantity=0), Bound(meter="page", quantity=1)), 9_000, 10, 3_010),
        ((Bound(meter="text_bytes", quantity=300), Bound(meter="input_tokens", quantity=70)), 300, 10, 80),
        ((Bound(meter="unboundable", quantity=1),), 300, 128_000, 4_196),
        ((), 300, 0, 4_196),
    ],
)
def test_what_a_request_may_take_is_estimated_from_what_it_shows(
    bounds: tuple[Bound, ...], input_bytes: int, max_tokens: int, tokens: int
) -> None:
    assert tokens_asked(ask(bounds=bounds, input_bytes=input_bytes, max_tokens=max_tokens)) == tokens


def test_a_retry_of_the_client_takes_nothing_of_a_quota_of_requests() -> None:
    desk = Desk(limited(key=RateLimits(requests_per_minute=2, tokens_per_minute=100_000)))
    desk.grant(ask("r1"))
    desk.close(usage("r1"))
    for number in range(10):
        granted = ask(f"retry{number}", retry=True)
        desk.grant(granted)
        desk.close(usage(granted.rid))
    desk.grant(ask("r2"))
    assert desk.deny(ask("r3")).rate_limit == "requests_per_minute"
    desk.grant(ask("retry of r1", retry=True))


def test_a_retry_of_the_client_counts_on_all_other_limits() -> None:
    desk = Desk(limited(key=RateLimits(concurrent_requests=1, requests_per_minute=5)))
    desk.grant(ask("r1", retry=True))
    assert desk.deny(ask("r2", retry=True)).rate_limit == "concurrent_requests"
