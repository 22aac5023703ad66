"""What `make chaos` judges by: its own count of every budget, made from the ledger alone."""

from tests.chaos.judge import Counters
from tests.fixtures.budget import Desk, ask, organisation, rule

CAP = 15_000_000  # nano-USD; an attempt holds 11,000,000


def test_an_attempt_that_takes_over_from_another_needs_no_room_beside_it() -> None:
    desk = Desk(organisation(key=[rule("key", CAP / 1e9, "total")]))
    desk.grant(ask("r1"))
    desk.grant(ask("r2", replaces_rid="r1"))
    counters = Counters({"key:key:total": CAP})
    assert [counters.apply(event) for event in desk.log] == [[]] * len(desk.log)
    assert counters.excess == 0


def test_what_passes_a_cap_is_told() -> None:
    desk = Desk(organisation(key=[rule("key", 1, "total")]))
    desk.grant(ask("r1"))
    desk.grant(ask("r2"))
    counters = Counters({"key:key:total": CAP})
    assert sum(bool(counters.apply(event)) for event in desk.log) == 1
    assert counters.excess == 22_000_000 - CAP
