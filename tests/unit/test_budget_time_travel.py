"""Through the nights on which periods roll: the whole core on a virtual clock, in zones where clocks do odd things."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.contracts.budget import Extend, Granted
from tests.fixtures.budget import DAY, HOUR, SECOND, USD, ask, organisation, rule
from tests.fixtures.travel import Traveller, micros

MILLI = USD // 1_000

# period, zone, anchor, the last second of one period
NIGHTS = [
    ("hour", "UTC", "", "2026-11-21T10:59:59Z"),
    ("hour", "Asia/Kathmandu", "", "2026-11-21T11:14:59Z"),
    ("hour", "Europe/Berlin", "", "2026-10-25T00:59:59Z"),  # 02:59:59, and 02:00:00 again
    ("hour", "Australia/Lord_Howe", "", "2026-04-04T14:59:59Z"),  # 01:59:59, and 01:30:00 again
    ("hour", "Australia/Lord_Howe", "", "2026-10-03T15:29:59Z"),  # 01:59:59, then 02:30:00
    ("day", "Pacific/Kiritimati", "", "2026-11-21T09:59:59Z"),
    ("day", "Etc/GMT+12", "", "2026-11-21T11:59:59Z"),
    ("day", "America/Sao_Paulo", "", "2018-11-04T02:59:59Z"),  # midnight does not exist
    ("day", "Asia/Beirut", "", "2026-03-28T21:59:59Z"),
    ("day", "Africa/Cairo", "", "2026-04-23T21:59:59Z"),
    ("day", "America/Havana", "", "2026-11-01T03:59:59Z"),  # midnight comes twice: the first one counts
    ("day", "Pacific/Apia", "", "2011-12-30T09:59:59Z"),  # the 30th does not exist
    ("day", "UTC", "", "2028-02-28T23:59:59Z"),  # a leap day begins
    ("day", "UTC", "", "2028-02-29T23:59:59Z"),
    ("week", "Europe/Berlin", "", "2026-03-29T21:59:59Z"),  # the week's last day had 23 hours
    ("week", "America/New_York", "2026-11-18", "2026-11-25T04:59:59Z"),
    ("month", "UTC", "2026-01-31", "2026-02-27T23:59:59Z"),
    ("month", "UTC", "2026-01-31", "2028-02-28T23:59:59Z"),
    ("month", "UTC", "2026-01-31", "2026-04-29T23:59:59Z"),
    ("quarter", "Australia/Lord_Howe", "", "2026-09-30T13:29:59Z"),
    ("year", "Asia/Kolkata", "2026-04-01", "2027-03-31T18:29:59Z"),  # a fiscal year
    ("year", "UTC", "2024-02-29", "2026-02-27T23:59:59Z"),
    ("year", "Pacific/Kiritimati", "", "2026-12-31T09:59:59Z"),
]


@pytest.mark.parametrize(("period", "zone", "anchor", "last"), NIGHTS)
def test_a_hold_lives_through_the_roll_and_posts_in_its_own_period(
    period: str, zone: str, anchor: str, last: str
) -> None:
    name = f"key:key:{period}"
    budget = rule("key", 0.05, period, timezone=zone, anchor=anchor, rollover_cap_nano_usd=10 * MILLI)
    desk = Traveller(organisation(key=[budget]), last)
    desk.grant(ask("night", max_tokens=3_000))
    desk.bill(0.02)
    desk.grant_usd(0.001, name)  # all of it is in use, and it is gone with the period
    assert desk.look() == []
    assert desk.deny(ask("full", may_wait=False)).reason == "busy"

    desk.at(micros(last) + SECOND)
    balance = desk.balance(name)
    assert (balance.spent_nano_usd, balance.granted_nano_usd) == (0, 0)
    assert balance.period_id != desk.rules.catalogue.limits[name].calendar.at(micros(last)).id
    assert balance.rolled_over_nano_usd == 10 * MILLI  # 30 unused but for the call in flight, which may yet take 31
    assert desk.allowance(name).tied == 10 * MILLI
    desk.grant(ask("morning", max_tokens=3_000))

    entry = desk.bill(0.025, rid="night")
    assert entry.late
    assert [charge.period_id for charge in entry.charges] != [balance.period_id]
    assert desk.booked(name) == (0, 31 * MILLI)
    assert desk.allowance(name)[1:] == (5 * MILLI, 0, 0)
    late = desk.bill(0.002, sent_at=last)
    assert late.charges == entry.charges
    assert desk.allowance(name).rolled_over == 3 * MILLI


@pytest.mark.parametrize(("period", "zone", "anchor", "last"), NIGHTS)
def test_a_block_is_lifted_in_the_second_in_which_the_period_rolls(
    period: str, zone: str, anchor: str, last: str
) -> None:
    desk = Traveller(organisation(key=[rule("key", 1, period, timezone=zone, anchor=anchor)]), last)
    desk.bill(1)
    assert desk.look() == [("block", f"key:key:{period}")]
    denied = desk.deny(ask())
    assert (denied.resets_at, denied.retry_after_s) == (micros(last) + SECOND, 1)
    desk.now += SECOND - 1
    assert desk.look() == []
    desk.now += 1
    assert desk.look() == [("unblock", f"key:key:{period}")]
    desk.grant(ask("r2"))


def test_a_total_stays_blocked_for_ever() -> None:
    desk = Traveller(organisation(key=[rule("key", 1, "total", timezone="Pacific/Apia")]), "2011-12-30T09:59:59Z")
    desk.bill(1)
    desk.look()
    for year in range(2012, 2040, 7):
        desk.at(f"{year}-12-30T10:00:00Z")
        assert desk.balance("key:key:total").blocked
    assert desk.deny(ask()).resets_at == 0


def test_a_prepaid_limit_of_nothing_is_blocked_again_when_its_grants_period_is_over() -> None:
    """Nobody asks meanwhile: the owner finds it by its agenda, though the scope was not blocked."""
    desk = Traveller(organisation(key=[rule("key", 0, "day", timezone="Asia/Beirut")]), "2026-03-28T21:59:58Z")
    desk.grant_usd(1, "key:key:day")
    assert desk.look() == []
    desk.now += SECOND
    assert desk.look() == []
    desk.now += SECOND
    assert desk.look() == [("block", "key:key:day")]


@pytest.mark.parametrize(
    ("zone", "given_at", "ends", "hours"),
    [
        ("Europe/Berlin", "2026-03-29T00:30:00+01:00", "2026-03-29T06:00:00+02:00", 4.5),
        ("Europe/Berlin", "2026-10-25T00:30:00+02:00", "2026-10-25T06:00:00+01:00", 6.5),
        ("Australia/Lord_Howe", "2026-04-05T01:00:00+11:00", "2026-04-05T03:00:00+10:30", 2.5),
    ],
)
def test_a_grant_ends_at_its_instant_in_a_night_in_which_clocks_change(
    zone: str, given_at: str, ends: str, hours: float
) -> None:
    desk = Traveller(organisation(key=[rule("key", 0, "day", timezone=zone)]), given_at)
    desk.grant_usd(1, "key:key:day", ends)
    assert micros(ends) - desk.now == hours * HOUR
    desk.bill(0.4)
    desk.at(micros(ends) - 1)
    assert desk.allowance("key:key:day").nano_usd == USD
    desk.now += 1
    assert desk.look() == [("block", "key:key:day")]
    assert desk.allowance("key:key:day").nano_usd == 400 * MILLI


@pytest.mark.parametrize(
    ("zone", "start", "days"),
    [
        ("Europe/Berlin", "2026-03-27T12:00:00Z", 5),
        ("Australia/Lord_Howe", "2026-10-01T12:00:00Z", 5),
        ("Pacific/Apia", "2011-12-28T12:00:00Z", 4),  # five dates, four days
    ],
)
def test_each_day_hands_on_what_it_leaves_however_long_it_was(zone: str, start: str, days: int) -> None:
    desk = Traveller(organisation(key=[rule("key", 1, "day", timezone=zone, rollover_cap_nano_usd=100 * USD)]), start)
    limit = desk.limit("key:key:day")
    for day in range(1, days + 1):
        desk.bill(0.25)
        desk.at(limit.calendar.at(desk.now).end)
        assert desk.allowance("key:key:day").rolled_over == day * 750 * MILLI


def test_an_hourly_budget_saves_through_a_night_with_an_hour_twice() -> None:
    desk = Traveller(
        organisation(key=[rule("key", 1, "hour", timezone="Europe/Berlin", rollover_cap_nano_usd=100 * USD)]),
        "2026-10-24T22:00:00Z",
    )
    desk.at("2026-10-25T05:00:00Z")
    assert desk.allowance("key:key:hour").rolled_over == 7 * USD


def test_a_stream_of_several_days_is_extended_out_of_the_day_it_began_in() -> None:
    desk = Traveller(organisation(key=[rule("key", 0.02, "day", rollover_cap_nano_usd=USD)]), "2026-11-21T10:00:00Z")
    desk.grant(ask("long"))
    desk.at("2026-11-23T10:00:00Z")
    answer = desk.do(Extend(rid="long", n=1, output_tokens=900))
    assert isinstance(answer, Granted)
    assert desk.balance("key:key:day").held_nano_usd == 20 * MILLI  # all of the first day is tied
    assert not isinstance(desk.do(Extend(rid="long", n=2, output_tokens=1)), Granted)


def test_the_wrong_calendar_of_an_old_hold_does_no_harm() -> None:
    """The zone was changed while a call was in flight: it stays on the count that it was booked on."""
    desk = Traveller(organisation(key=[rule("key", 0.02, "day", rollover_cap_nano_usd=USD)]), "2026-11-21T10:00:00Z")
    desk.grant(ask("r1"))
    desk.put(*organisation(key=[rule("key", 0.02, "day", rollover_cap_nano_usd=USD, timezone="Asia/Tokyo")]))
    assert desk.booked("key:key:day") == (0, 0)
    assert isinstance(desk.do(Extend(rid="r1", n=1, output_tokens=900)), Granted)
    assert not isinstance(desk.do(Extend(rid="r1", n=2, output_tokens=1)), Granted)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([night[:3] for night in NIGHTS]),
    st.lists(st.tuples(st.integers(1, 40 * 24), st.integers(0, 12)), min_size=1, max_size=12),
)
def test_what_is_spent_of_all_periods_never_passes_all_their_limits(
    calendar: tuple[str, str, str], steps: list[tuple[int, int]]
) -> None:
    """Rollover moves money, it makes none: a client that takes all it gets has had no more than one limit each period."""
    period, zone, anchor = calendar
    limit = rule("key", 0.03, period, timezone=zone, anchor=anchor, rollover_cap_nano_usd=90 * MILLI)
    desk = Traveller(organisation(key=[limit]), "2026-02-20T10:00:00Z")
    seen = {desk.limit(limit.id).calendar.at(desk.now).id}
    spent = rid = 0
    for hours, calls in steps:
        for _ in range(hours if period == "hour" else hours // 24 + 1):
            desk.at(desk.now + (HOUR if period == "hour" else DAY) // 2)
            seen.add(desk.limit(limit.id).calendar.at(desk.now).id)
        for _ in range(calls):
            rid += 1
            if isinstance(granted := desk.do(ask(f"r{rid}")), Granted):
                desk.bill(granted.held_nano_usd / USD, rid=f"r{rid}")
                spent += granted.held_nano_usd
    assert spent <= len(seen) * limit.limit_nano_usd
