"""What a budget allows: its limit, what rolled over, what was granted."""

import msgspec
import pytest

from shared.contracts.budget import Denied, Extend, Granted, Queued
from shared.contracts.config import Key
from tests.fixtures.budget import HOUR, USD, ask, organisation
from tests.fixtures.budget import rule as budget
from tests.fixtures.travel import Traveller, micros

DAY = "key:key:day"
TOTAL = "key:key:total"
MILLI = USD // 1_000


def rolling(limit_usd: float = 5, cap_usd: float = 3) -> Traveller:
    rule = budget("key", limit_usd, "day", rollover_cap_nano_usd=round(cap_usd * USD))
    return Traveller(organisation(key=[rule]), "2026-11-21T10:00:00Z")


def prepaid(limit_usd: float = 0) -> Traveller:
    return Traveller(organisation(key=[budget("key", limit_usd, "total")]), "2026-11-21T10:00:00Z")


def rolled(desk: Traveller, budget_id: str = DAY) -> float:
    return desk.allowance(budget_id).rolled_over / USD


def allowed(desk: Traveller, budget_id: str = DAY) -> float:
    return desk.allowance(budget_id).nano_usd / USD


# Rollover


def test_what_is_unused_rolls_over_up_to_the_cap() -> None:
    desk = rolling()
    desk.bill(4)
    desk.at("2026-11-22T00:00:00Z")
    assert (rolled(desk), allowed(desk)) == (1, 6)
    desk.bill(0.5)
    desk.at("2026-11-23T00:00:00Z")
    assert (rolled(desk), allowed(desk)) == (3, 8)


def test_nothing_rolls_over_from_before_the_budget_was_there() -> None:
    desk = rolling()
    assert rolled(desk) == 0
    desk.at("2026-11-22T00:00:00Z")
    assert rolled(desk) == 3


def test_what_rolled_over_rolls_on_when_it_is_not_used() -> None:
    desk = rolling(limit_usd=1, cap_usd=10)
    for day in range(22, 26):
        desk.at(f"2026-11-{day}T12:00:00Z")
    assert rolled(desk) == 4
    desk.bill(4.5)
    desk.at("2026-11-26T12:00:00Z")
    assert rolled(desk) == 0.5


def test_a_period_that_was_overspent_takes_nothing_from_the_next() -> None:
    desk = rolling()
    desk.bill(9)
    desk.at("2026-11-22T00:00:00Z")
    assert (rolled(desk), allowed(desk)) == (0, 5)


def test_a_late_line_takes_back_what_had_rolled_over() -> None:
    desk = rolling()
    desk.bill(3)
    desk.at("2026-11-22T00:00:00Z")
    assert rolled(desk) == 2
    assert desk.bill(1.5, sent_at="2026-11-21T23:00:00Z").late
    assert rolled(desk) == 0.5


def test_a_late_line_may_block_what_lived_on_the_rollover() -> None:
    desk = rolling()
    desk.at("2026-11-22T00:00:00Z")
    desk.bill(6)
    assert desk.look() == []
    desk.bill(4.5, sent_at="2026-11-21T23:00:00Z")
    assert desk.look() == [("block", DAY)]


def test_the_limit_of_a_past_period_is_the_one_that_was_in_force_at_its_end() -> None:
    desk = rolling(limit_usd=1, cap_usd=100)
    desk.at("2026-11-22T12:00:00Z")
    desk.put(*organisation(key=[budget("key", 50, "day", rollover_cap_nano_usd=100 * USD)]))
    assert (rolled(desk), allowed(desk)) == (1, 51)
    desk.at("2026-11-23T12:00:00Z")
    assert rolled(desk) == 51


@pytest.mark.parametrize("change", [{"timezone": "Asia/Tokyo"}, {"anchor": "2026-11-18"}])
def test_another_calendar_is_another_budget_from_which_nothing_rolls_over(change: dict[str, str]) -> None:
    desk = rolling()
    desk.at("2026-11-23T12:00:00Z")
    assert rolled(desk) == 3
    desk.put(*organisation(key=[budget("key", 5, "day", rollover_cap_nano_usd=3 * USD, **change)]))
    assert rolled(desk) == 0


def test_a_budget_that_was_taken_out_and_put_back_begins_again() -> None:
    desk = rolling()
    desk.at("2026-11-23T12:00:00Z")
    desk.put(*organisation())
    desk.put(*organisation(key=[budget("key", 5, "day", rollover_cap_nano_usd=3 * USD)]))
    assert rolled(desk) == 0


def test_what_was_unused_a_thousand_periods_ago_is_forgotten() -> None:
    rule = budget("key", 1, "hour", rollover_cap_nano_usd=5_000 * USD)
    desk = Traveller(organisation(key=[rule]), "2026-01-01T00:00:00Z")
    desk.at(desk.now + 999 * HOUR)
    assert rolled(desk, rule.id) == 999
    desk.at(desk.now + 500 * HOUR)
    assert rolled(desk, rule.id) == 1_000


def test_a_total_rolls_over_nothing() -> None:
    desk = Traveller(organisation(key=[budget("key", 5, "total", rollover_cap_nano_usd=USD)]), "2026-11-21T10:00:00Z")
    desk.at("2027-11-21T10:00:00Z")
    assert allowed(desk, TOTAL) == 5


def test_a_member_has_a_rollover_since_its_key_was_made() -> None:
    share = budget("team", 5, "day", per="member", rollover_cap_nano_usd=20 * USD)
    desk = Traveller(organisation(team=[share]), "2026-11-21T10:00:00Z")
    desk.at("2026-11-23T10:00:00Z")
    desk.put(Key(uid="key3", org="org", customer="cus", team="team", id="dev3"))
    assert rolled(desk, "team:team:day:member:key") == 10
    assert rolled(desk, "team:team:day:member:key3") == 0


def test_calls_in_flight_over_midnight_tie_what_they_may_still_take() -> None:
    """What is tied is busy and not spent: it may come back any moment."""
    desk = rolling(limit_usd=0.02, cap_usd=1)
    desk.grant(ask("night"))
    desk.at("2026-11-22T00:00:00Z")
    assert desk.allowance(DAY)[:2] == (40 * MILLI, 20 * MILLI)
    assert desk.allowance(DAY).tied == 11 * MILLI
    balance = desk.balance(DAY)
    assert (balance.held_nano_usd, balance.rolled_over_nano_usd) == (11 * MILLI, 20 * MILLI)
    desk.grant(ask("one"))
    desk.grant(ask("two"))
    denied = desk.deny(ask("three", may_wait=False))
    assert (denied.reason, denied.held_nano_usd) == ("busy", 33 * MILLI)
    desk.bill(0, rid="night")
    desk.grant(ask("three"))


def test_an_extension_of_yesterdays_call_leaves_what_is_in_use_today() -> None:
    desk = rolling(limit_usd=0.02, cap_usd=1)
    desk.grant(ask("night"))
    desk.at("2026-11-22T00:00:00Z")
    desk.grant(ask("day", max_tokens=2_400))  # 25 of the 29 that are free
    assert isinstance(desk.do(Extend(rid="night", n=1, output_tokens=401)), Queued)  # until the one of today is over
    assert isinstance(desk.do(Extend(rid="night", n=1, output_tokens=400)), Granted)
    assert desk.allowance(DAY).tied == 15 * MILLI


def test_an_extension_of_yesterdays_call_waits_for_one_of_today() -> None:
    desk = rolling(limit_usd=0.02, cap_usd=1)
    desk.grant(ask("night"))
    desk.at("2026-11-22T00:00:00Z")
    desk.grant(ask("day", max_tokens=2_400))
    desk.queue(Extend(rid="night", n=1, output_tokens=800))
    desk.bill(0.021, rid="day")
    granted = desk.told("night", 1)
    assert isinstance(granted, Granted)
    assert granted.held_output_tokens == 800
    assert isinstance(desk.do(Extend(rid="night", n=2, output_tokens=10)), Denied)


# Grants


def test_a_grant_lifts_the_block_and_counts_for_its_period_only() -> None:
    desk = Traveller(organisation(key=[budget("key", 1, "day")]), "2026-11-21T10:00:00Z")
    desk.bill(1)
    assert desk.look() == [("block", DAY)]
    desk.grant_usd(2, DAY)
    assert desk.look() == [("unblock", DAY)]
    assert (allowed(desk), desk.balance(DAY).granted_nano_usd) == (3, 2 * USD)
    desk.at("2026-11-22T00:00:00Z")
    assert allowed(desk) == 1


def test_a_grant_does_not_roll_over_even_when_the_limit_does() -> None:
    desk = rolling()
    desk.grant_usd(10, DAY)
    desk.bill(6)
    desk.at("2026-11-22T00:00:00Z")
    assert allowed(desk) == 5


def test_a_limit_of_nothing_with_top_ups_is_prepaid() -> None:
    desk = prepaid()
    assert desk.look() == [("block", TOTAL)]
    desk.grant_usd(10, TOTAL)
    assert desk.look() == [("unblock", TOTAL)]
    desk.bill(9)
    desk.at("2027-06-01T00:00:00Z")
    desk.grant_usd(5, TOTAL)
    assert allowed(desk, TOTAL) == 15
    desk.bill(6)
    assert desk.look() == [("block", TOTAL)]


def test_what_was_used_of_a_lapsed_top_up_stays_paid() -> None:
    """Else it would be paid again out of the next one."""
    desk = prepaid()
    desk.grant_usd(10, TOTAL, "2026-12-01T00:00:00Z")
    desk.bill(8)
    desk.at("2026-12-01T00:00:00Z")
    assert desk.balance(TOTAL).blocked
    assert allowed(desk, TOTAL) == 8
    desk.grant_usd(10, TOTAL)
    assert allowed(desk, TOTAL) == 18
    desk.bill(9.5)
    assert allowed(desk, TOTAL) == 18


def test_of_several_grants_the_one_that_ends_first_is_used_first() -> None:
    desk = prepaid(limit_usd=1)
    desk.grant_usd(4, TOTAL)
    desk.grant_usd(4, TOTAL, "2026-12-01T00:00:00Z")
    desk.grant_usd(4, TOTAL, "2026-11-25T00:00:00Z")
    desk.bill(6)  # 1 of the limit, 4 of the third, 1 of the second
    desk.at("2026-11-25T00:00:00Z")
    assert allowed(desk, TOTAL) == 13
    desk.at("2026-12-01T00:00:00Z")
    assert allowed(desk, TOTAL) == 10
    assert desk.state.lapsed == {"grant3": 4 * USD, "grant2": USD}


def test_a_grant_that_was_taken_back_leaves_what_was_used_of_it() -> None:
    desk = prepaid()
    grant = desk.grant_usd(10, TOTAL)
    desk.bill(4)
    desk.take_back(grant)
    assert allowed(desk, TOTAL) == 4
    assert desk.balance(TOTAL).blocked


def test_calls_in_flight_keep_what_they_hold_of_a_grant_that_ends() -> None:
    desk = Traveller(organisation(key=[budget("key", 0, "day")]), "2026-11-21T10:00:00Z")
    desk.grant_usd(1, DAY, "2026-11-21T11:00:00Z")
    desk.grant(ask("r1"))
    desk.at("2026-11-21T11:00:00Z")
    assert desk.allowance(DAY).nano_usd == 11 * MILLI
    assert desk.deny(ask("r2", may_wait=False)).reason == "busy"
    desk.bill(0.011, rid="r1")
    assert desk.look() == [("block", DAY)]


def test_two_owners_agree_on_a_grant_that_ended_while_nobody_looked() -> None:
    desk = prepaid()
    desk.grant_usd(10, TOTAL, "2026-12-01T00:00:00Z")
    desk.bill(3)
    desk.now = micros("2027-01-01T00:00:00Z")
    assert (allowed(desk, TOTAL), desk.state.lapsed) == (3, {})
    desk.look()
    desk.look()
    assert (allowed(desk, TOTAL), desk.state.lapsed) == (3, {"grant1": 3 * USD})


def test_a_grant_to_one_member_is_not_the_others() -> None:
    desk = Traveller(organisation(team=[budget("team", 1, "day", per="member")]), "2026-11-21T10:00:00Z")
    desk.grant_usd(2, "team:team:day:member:key")
    assert allowed(desk, "team:team:day:member:key") == 3
    assert allowed(desk, "team:team:day:member:key2") == 1


def test_amounts_beyond_what_a_message_carries_are_cut() -> None:
    desk = prepaid()
    most = (1 << 63) - 1
    desk.put(msgspec.structs.replace(desk.grant_usd(1, TOTAL), nano_usd=most, uid="more"))
    assert desk.allowance(TOTAL).nano_usd == most


def test_a_plain_limit_is_not_worked_out() -> None:
    desk = Traveller(organisation(key=[budget("key", 5, "day")]), "2026-11-21T10:00:00Z")
    assert desk.limit(DAY).allowances is None
    assert desk.allowance(DAY) is desk.allowance(DAY)
