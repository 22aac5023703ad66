"""Rollover and grants against an oracle that adds everything up from the first day on."""

from collections import defaultdict
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shared.contracts.budget import Extend
from shared.contracts.ledger import Entry, Extended, Held, Withdrawn
from tests.fixtures.budget import HOUR, USD, ask, organisation
from tests.fixtures.budget import rule as budget
from tests.fixtures.travel import Traveller, micros

DAY = "key:key:day"
TOTAL = "key:key:total"
MILLI = USD // 1_000


def rolling(limit_usd: float = 5, cap_usd: float = 3) -> Traveller:
    rule = budget("key", limit_usd, "day", rollover_cap_nano_usd=round(cap_usd * USD))
    return Traveller(organisation(key=[rule]), "2026-11-21T10:00:00Z")


ZONE = ZoneInfo("Australia/Lord_Howe")


class RolloverMachine(RuleBasedStateMachine):
    """One daily budget with rollover and grants, against a few dictionaries that are added up from the first day on."""

    @initialize(limit=st.integers(0, 60), cap=st.integers(1, 150))
    def begin(self, limit: int, cap: int) -> None:
        self.limit, self.cap = limit * MILLI, cap * MILLI
        made = budget("key", 0, "day", timezone=ZONE.key, rollover_cap_nano_usd=self.cap, hold="bound")
        made = msgspec.structs.replace(made, limit_nano_usd=self.limit)
        self.desk = Traveller(organisation(key=[made]), "2026-04-02T01:00:00Z")  # clocks go back on the 5th
        self.first = self.day()
        self.spent: dict[int, int] = defaultdict(int)
        self.held: dict[str, tuple[int, int]] = {}
        self.grants: dict[str, tuple[int, int, int]] = {}  # day, amount, end
        self.paid: dict[str, int] = {}
        self.rids = self.seen = 0

    def take_in(self) -> None:
        """What the ledger has by now. Whoever waited may have been served by the close of another."""
        events, self.seen = self.desk.log[self.seen :], len(self.desk.log)
        for event in events:
            match event:
                case Held():
                    self.held[event.rid] = (self.day(event.admitted_at), event.nano_usd)
                case Extended():
                    day, amount = self.held[event.rid]
                    self.held[event.rid] = (day, amount + event.nano_usd)
                case Withdrawn():
                    self.held.pop(event.rid, None)
                case Entry():
                    usage = event.usage.usage
                    day, _ = self.held.pop(usage.rid, (self.day(usage.sent_at), 0))
                    self.spent[day] += event.usage.cost_nano_usd

    def day(self, at: int = 0) -> int:
        return (
            (datetime(1970, 1, 1, tzinfo=ZoneInfo("UTC")) + timedelta(microseconds=at or self.desk.now))
            .astimezone(ZONE)
            .toordinal()
        )

    def used(self, day: int) -> int:
        return self.spent[day] + sum(amount for on, amount in self.held.values() if on == day)

    def arrives(self, day: int, held: bool) -> int:
        """What rolls over into this day: forward from the first one, nothing clever."""
        found = 0
        for earlier in range(self.first, day):
            left = self.limit + found - (self.used(earlier) if held else self.spent[earlier])
            found = min(self.cap, max(0, left))
        return found

    def granted(self, day: int) -> int:
        return sum(
            amount if end > self.desk.now else self.paid.get(uid, 0)
            for uid, (on, amount, end) in self.grants.items()
            if on == day
        )

    def excess(self) -> dict[int, int]:
        """By day, how far what is used lies above what was allowed."""
        days = range(self.first, self.day() + 1)
        return {day: self.used(day) - self.limit - self.arrives(day, True) - self.granted(day) for day in days}

    def allowed_no_more_than(self, before: dict[int, int]) -> None:
        self.take_in()
        for day, excess in self.excess().items():
            assert excess <= max(0, before[day]), f"{excess} above what day {day - self.first} allows"

    @rule(minutes=st.integers(1, 2_000))
    def wait(self, minutes: int) -> None:
        self.desk.now += minutes * HOUR // 60
        self.take_in()
        before = self.excess()
        ended = sorted((end, uid, on) for uid, (on, _, end) in self.grants.items() if end <= self.desk.now)
        for _, uid, day in ended:
            if uid not in self.paid:
                over = self.used(day) - self.limit - self.arrives(day, False)
                over -= sum(self.paid.get(other, 0) for other, (on, _, _) in self.grants.items() if on == day)
                self.paid[uid] = max(0, min(self.grants[uid][1], over))
        self.desk.look()
        self.allowed_no_more_than({day: max(0, before[day]) for day in before})

    @rule(tokens=st.integers(1, 8_000))
    def reserve(self, tokens: int) -> None:
        self.rids += 1
        before = self.excess()
        self.desk.do(ask(f"r{self.rids}", max_tokens=tokens))
        self.allowed_no_more_than(before)

    @precondition(lambda self: self.held)
    @rule(index=st.integers(0, 9), tokens=st.integers(1, 4_000), n=st.integers(1, 5))
    def extend(self, index: int, tokens: int, n: int) -> None:
        rid = list(self.held)[index % len(self.held)]
        before = self.excess()
        self.desk.do(Extend(rid=rid, n=n, output_tokens=tokens))
        self.allowed_no_more_than(before)

    @precondition(lambda self: self.held)
    @rule(index=st.integers(0, 9), percent=st.sampled_from((0, 30, 100, 120)))
    def close(self, index: int, percent: int) -> None:
        rid = list(self.held)[index % len(self.held)]
        self.desk.bill(self.held[rid][1] * percent // 100 / USD, rid=rid)
        self.take_in()

    @rule(hours=st.integers(1, 60), milli=st.integers(1, 40))
    def late(self, hours: int, milli: int) -> None:
        """A line without a hold, of today or of a day before."""
        sent_at = max(self.desk.now - hours * HOUR, micros("2026-04-02T01:00:00Z"))
        self.desk.bill(milli / 1_000, sent_at=sent_at)
        self.take_in()

    @rule(milli=st.integers(1, 50), hours=st.integers(1, 40))
    def give(self, milli: int, hours: int) -> None:
        end = self.desk.now + hours * HOUR + len(self.grants)  # no two end together
        grant = self.desk.grant_usd(milli / 1_000, DAY, end)
        self.grants[grant.uid] = (self.day(), milli * MILLI, end)
        self.take_in()

    @invariant()
    def the_core_and_the_oracle_agree(self) -> None:
        if not hasattr(self, "desk"):
            return
        found, today = self.desk.allowance(DAY), self.day()
        assert found.rolled_over == self.arrives(today, False)
        assert found.rolled_over - found.tied == self.arrives(today, True)
        assert found.granted == self.granted(today)
        assert found.nano_usd == self.limit + found.rolled_over + found.granted
        assert self.desk.booked(DAY) == (self.spent[today], self.used(today) - self.spent[today])


TestRollover = RolloverMachine.TestCase
TestRollover.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
