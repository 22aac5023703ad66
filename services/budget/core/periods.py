"""When a budget begins anew: calendars and fiscal anchors in IANA zones, through clock changes.

Periods of one calendar follow each other without gap or overlap, so that every instant belongs to exactly one.
"""

import calendar
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from shared.contracts.message import Micros

NEVER: Micros = 1 << 62
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICRO = timedelta(microseconds=1)
_HOUR = timedelta(hours=1)
_FIRST_MONDAY = date(1970, 1, 5)
_MONTHS = {"month": 1, "quarter": 3, "year": 12}


class Period(NamedTuple):
    """id: RFC 9557 text of the start, `total` where there is one period only. end: exclusive; NEVER for `total`."""

    id: str
    start: Micros
    end: Micros


TOTAL = Period("total", 0, NEVER)


class Calendar:
    """The periods of one (period, timezone, anchor). Remembers the last one asked for: it is asked for again.

    anchor: ISO date that periods count from, "" for the calendar's own (weeks begin on Monday). A day of the month that a
    month lacks is its last. Anchors do not move hours and days.
    Raises zoneinfo.ZoneInfoNotFoundError or ValueError for a zone or date that does not exist.
    """

    def __init__(self, period: str, timezone: str = "UTC", anchor: str = "") -> None:
        self.period = period
        self._zone = ZoneInfo(timezone)
        self._name = timezone
        self._anchor = date.fromisoformat(anchor) if anchor and anchor != "calendar" else None
        self._last = TOTAL if period == "total" else Period("", 0, 0)
        self._before: dict[Micros, Period] = {}

    def at(self, now: Micros) -> Period:
        """The period that holds this instant."""
        last = self._last
        if not last.start <= now < last.end:
            last = self._last = self._find(now)
        return last

    def before(self, period: Period) -> Period:
        """The period that ended where this one began; not for `total`. Remembered: chains of them are walked again."""
        found = self._before.get(period.start)
        if found is None:
            found = self._before[period.start] = self._find(period.start - 1)
        return found

    def _find(self, now: Micros) -> Period:
        at = _EPOCH + timedelta(microseconds=now)
        if self.period == "hour":
            start, end = _hour(at, self._zone)
        else:
            first, after = self._days(at.astimezone(self._zone).date())
            start, end = _midnight(first, self._zone), _midnight(after, self._zone)
        text = start.astimezone(self._zone).isoformat(timespec="seconds")
        return Period(f"{text}[{self._name}]", (start - _EPOCH) // _MICRO, (end - _EPOCH) // _MICRO)

    def _days(self, day: date) -> tuple[date, date]:
        """First day of the period, and of the next one."""
        if self.period == "day":
            return day, day + timedelta(days=1)
        if self.period == "week":
            first = day - timedelta(days=(day - (self._anchor or _FIRST_MONDAY)).days % 7)
            return first, first + timedelta(days=7)
        size = _MONTHS[self.period]
        anchor = self._anchor or date(1970, 1, 1)
        months = (day.year - anchor.year) * 12 + day.month - anchor.month
        months -= months % size
        if _months_after(anchor, months) > day:
            months -= size
        return _months_after(anchor, months), _months_after(anchor, months + size)


def _months_after(anchor: date, months: int) -> date:
    """Counted from the anchor itself and not from the period before, else the 31st would stay a 28th after February."""
    year, month = divmod(anchor.month - 1 + months, 12)
    year += anchor.year
    return date(year, month + 1, min(anchor.day, calendar.monthrange(year, month + 1)[1]))


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    """The first instant of a local day. Where clocks jump over midnight, fold 0 yields the instant of the jump."""
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)


def _hour(at: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """The hour of the local clock around an instant; clipped where a clock change of less than an hour falls into it."""
    offset = _offset(at, zone)
    start = at - ((at + offset) - _EPOCH) % _HOUR
    end = start + _HOUR
    if _offset(start, zone) != offset:
        start = _change(start, at, zone)
    if _offset(end - _MICRO, zone) != offset:
        end = _change(at, end - _MICRO, zone)
    return start, end


def _offset(at: datetime, zone: ZoneInfo) -> timedelta:
    offset = at.astimezone(zone).utcoffset()
    assert offset is not None, "an aware datetime has an offset"
    return offset


def _change(before: datetime, after: datetime, zone: ZoneInfo) -> datetime:
    """The instant between the two at which the clock changes."""
    offset = _offset(before, zone)
    while after - before > _MICRO:
        middle = before + (after - before) // 2
        if _offset(middle, zone) == offset:
            before = middle
        else:
            after = middle
    return after
