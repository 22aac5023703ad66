"""When a budget begins anew."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.budget.core.periods import TOTAL, Calendar

PERIODS = ("hour", "day", "week", "month", "quarter", "year")
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",  # clocks change by half an hour
    "Africa/Cairo",  # clocks jump over midnight
    "America/Havana",  # midnight comes twice
    "Pacific/Apia",  # left out a whole day
    "Asia/Kathmandu",  # offset of 5:45
    "America/Santiago",
    "America/Sao_Paulo",  # clocks jumped over midnight until 2018
    "Asia/Beirut",  # the same, every year
    "Pacific/Kiritimati",  # the first to begin a day
    "Etc/GMT+12",  # the last
)
EVERYWHERE = sorted(available_timezones())


def micros(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp()) * 1_000_000


@pytest.mark.parametrize(
    ("period", "zone", "anchor", "at", "expected"),
    [
        ("month", "Europe/Berlin", "", "2026-11-21T10:00:00Z", "2026-11-01T00:00:00+01:00[Europe/Berlin]"),
        ("month", "Europe/Berlin", "", "2026-10-31T23:00:00Z", "2026-11-01T00:00:00+01:00[Europe/Berlin]"),
        ("month", "Europe/Berlin", "", "2026-10-31T22:59:59Z", "2026-10-01T00:00:00+02:00[Europe/Berlin]"),
        ("day", "UTC", "", "2026-11-21T10:00:00Z", "2026-11-21T00:00:00+00:00[UTC]"),
        ("week", "UTC", "", "2026-11-21T10:00:00Z", "2026-11-16T00:00:00+00:00[UTC]"),
        ("week", "UTC", "2026-11-18", "2026-11-21T10:00:00Z", "2026-11-18T00:00:00+00:00[UTC]"),
        ("week", "UTC", "2026-11-18", "2026-11-17T10:00:00Z", "2026-11-11T00:00:00+00:00[UTC]"),
        ("quarter", "UTC", "", "2026-11-21T10:00:00Z", "2026-10-01T00:00:00+00:00[UTC]"),
        ("quarter", "UTC", "2026-02-01", "2026-01-15T00:00:00Z", "2025-11-01T00:00:00+00:00[UTC]"),
        ("year", "America/New_York", "", "2027-01-01T04:59:59Z", "2026-01-01T00:00:00-05:00[America/New_York]"),
        ("year", "UTC", "2024-02-29", "2026-03-01T00:00:00Z", "2026-02-28T00:00:00+00:00[UTC]"),
        ("year", "UTC", "2024-02-29", "2028-02-28T12:00:00Z", "2027-02-28T00:00:00+00:00[UTC]"),
        ("month", "UTC", "2026-01-31", "2026-03-30T12:00:00Z", "2026-02-28T00:00:00+00:00[UTC]"),
        ("month", "UTC", "2026-01-31", "2026-03-31T00:00:00Z", "2026-03-31T00:00:00+00:00[UTC]"),
        ("hour", "Europe/Berlin", "", "2026-10-25T00:30:00Z", "2026-10-25T02:00:00+02:00[Europe/Berlin]"),
        ("hour", "Europe/Berlin", "", "2026-10-25T01:30:00Z", "2026-10-25T02:00:00+01:00[Europe/Berlin]"),
        ("hour", "Asia/Kathmandu", "", "2026-11-21T10:20:00Z", "2026-11-21T16:00:00+05:45[Asia/Kathmandu]"),
        ("day", "Africa/Cairo", "", "2026-04-23T22:30:00Z", "2026-04-24T01:00:00+03:00[Africa/Cairo]"),
        ("day", "America/Havana", "", "2026-11-01T05:30:00Z", "2026-11-01T00:00:00-04:00[America/Havana]"),
        ("day", "America/Sao_Paulo", "", "2018-11-04T03:00:00Z", "2018-11-04T01:00:00-02:00[America/Sao_Paulo]"),
        ("day", "America/Sao_Paulo", "", "2018-11-04T02:59:59Z", "2018-11-03T00:00:00-03:00[America/Sao_Paulo]"),
        ("month", "Asia/Beirut", "2026-03-29", "2026-03-29T12:00:00Z", "2026-03-29T01:00:00+03:00[Asia/Beirut]"),
        ("day", "Pacific/Apia", "", "2011-12-30T10:00:00Z", "2011-12-31T00:00:00+14:00[Pacific/Apia]"),
        ("day", "Pacific/Apia", "", "2011-12-30T09:59:59Z", "2011-12-29T00:00:00-10:00[Pacific/Apia]"),
        ("year", "Pacific/Kiritimati", "", "2026-12-31T10:00:00Z", "2027-01-01T00:00:00+14:00[Pacific/Kiritimati]"),
        ("year", "Etc/GMT+12", "", "2027-01-01T11:59:59Z", "2026-01-01T00:00:00-12:00[Etc/GMT+12]"),
        ("month", "UTC", "2027-08-31", "2028-02-28T12:00:00Z", "2028-01-31T00:00:00+00:00[UTC]"),
        ("month", "UTC", "2027-08-31", "2028-02-29T00:00:00Z", "2028-02-29T00:00:00+00:00[UTC]"),
        ("quarter", "UTC", "2026-11-30", "2027-02-28T00:00:00Z", "2027-02-28T00:00:00+00:00[UTC]"),
        ("year", "Asia/Kolkata", "2026-04-01", "2027-03-31T18:30:00Z", "2027-04-01T00:00:00+05:30[Asia/Kolkata]"),
    ],
)
def test_a_period_is_named_by_its_start_in_its_zone(
    period: str, zone: str, anchor: str, at: str, expected: str
) -> None:
    assert Calendar(period, zone, anchor).at(micros(at)).id == expected


@pytest.mark.parametrize(("at", "hours"), [("2026-03-29T12:00:00Z", 23), ("2026-10-25T12:00:00Z", 25)])
def test_a_day_on_which_clocks_change_is_an_hour_shorter_or_longer(at: str, hours: int) -> None:
    period = Calendar("day", "Europe/Berlin").at(micros(at))
    assert period.end - period.start == hours * 3_600_000_000


@pytest.mark.parametrize(
    ("zone", "at", "minutes"),
    [
        ("Australia/Lord_Howe", "2026-04-04T15:10:00Z", 30),  # 01:30 comes twice: the half hour before, then it again
        ("Australia/Lord_Howe", "2026-10-03T15:40:00Z", 30),  # 02:00 becomes 02:30
        ("Europe/Berlin", "2026-10-25T01:30:00Z", 60),
    ],
)
def test_an_hour_in_which_clocks_change_by_less_is_cut_there(zone: str, at: str, minutes: int) -> None:
    period = Calendar("hour", zone).at(micros(at))
    assert period.end - period.start == minutes * 60_000_000


def test_the_period_before_is_found_without_moving_the_calendar() -> None:
    calendar = Calendar("month", "Europe/Berlin")
    november = calendar.at(micros("2026-11-21T10:00:00Z"))
    october = calendar.before(november)
    assert (october.id, october.end) == ("2026-10-01T00:00:00+02:00[Europe/Berlin]", november.start)
    assert calendar.before(november) is october
    assert calendar.at(micros("2026-11-21T10:00:00Z")) is november


def test_a_total_never_ends() -> None:
    assert Calendar("total", "Europe/Berlin").at(micros("2026-11-21T10:00:00Z")) == TOTAL


def test_a_zone_that_does_not_exist_is_refused() -> None:
    with pytest.raises(KeyError):
        Calendar("day", "Mars/Olympus")


anchors = st.one_of(st.just(""), st.dates(datetime(2000, 1, 1).date(), datetime(2040, 1, 1).date()).map(str))  # noqa: DTZ001  # only its date is used
instants = st.integers(micros("2010-01-01T00:00:00Z"), micros("2040-01-01T00:00:00Z"))


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(PERIODS), st.sampled_from(ZONES) | st.sampled_from(EVERYWHERE), anchors, instants)
def test_every_instant_lies_in_exactly_one_period(period: str, zone: str, anchor: str, at: int) -> None:
    found = Calendar(period, zone, anchor).at(at)
    fresh = Calendar(period, zone, anchor)
    assert found.start <= at < found.end
    assert fresh.at(found.start) == found
    assert fresh.at(found.end - 1) == found
    following, before = fresh.at(found.end), Calendar(period, zone, anchor).at(found.start - 1)
    assert following.start == found.end
    assert before.end == found.start
    assert len({before.id, found.id, following.id}) == 3


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(("day", "week", "month", "quarter", "year")), st.sampled_from(ZONES), instants)
def test_a_calendar_period_begins_at_the_first_instant_of_a_local_day(period: str, zone: str, at: int) -> None:
    start = Calendar(period, zone).at(at).start
    local = datetime.fromtimestamp(start // 1_000_000, ZoneInfo(zone))
    before = (datetime.fromtimestamp(start // 1_000_000, UTC) - timedelta(microseconds=1)).astimezone(ZoneInfo(zone))
    assert before.date() < local.date()
