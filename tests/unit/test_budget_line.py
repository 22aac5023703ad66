"""The line: who waits for money that others hold, whose turn it is, and that nobody waits for somebody else's budget."""

import pytest

from services.budget.core.line import Line
from shared.contracts.budget import Denied, Extend, Granted, Queued, Withdraw
from tests.fixtures.budget import SECOND, USD, Desk, ask, organisation, rule, usage

# the round price book: 1,000 tokens of prompt are 0.001 USD, 49,900 tokens of output 0.499 USD
HALF = 49_900


def desk(team: float = 1, key: float = 100) -> Desk:
    return Desk(organisation(team=[rule("team", team)], key=[rule("key", key)]))


def test_what_is_not_free_now_waits_and_gets_in_when_it_is() -> None:
    at = desk()
    at.grant(ask("r1", max_tokens=HALF))
    at.grant(ask("r2", max_tokens=HALF))
    assert at.queue(ask("r3", max_tokens=HALF)).ahead == 0
    assert at.queue(ask("r4", max_tokens=HALF)).ahead == 1
    at.close(usage("r1", nano_usd=1_000))
    assert at.late == [], "what came free is less than what it had best hold, though more than it needs"
    at.close(usage("r2", nano_usd=1_000))
    granted = at.told("r3")
    assert isinstance(granted, Granted)
    assert granted.held_nano_usd == USD // 2
    assert at.late == []


def test_asked_again_it_keeps_its_turn_and_hears_a_lost_verdict() -> None:
    at = desk(team=0.5)
    at.grant(ask("r1", max_tokens=HALF))
    for waited in (0, 2_000, 4_000):
        at.queue(ask("r2", max_tokens=HALF, waited_ms=waited))
    assert len(at.line.waiters) == 1
    at.close(usage("r1", kind="void", nano_usd=0))
    first = at.told("r2")
    assert isinstance(first, Granted)
    assert at.grant(ask("r2", max_tokens=HALF, waited_ms=6_000)).held_nano_usd == first.held_nano_usd
    assert at.booked("team:team:month") == (0, USD // 2)


def test_after_the_longest_wait_a_stream_takes_the_least_that_is_worth_it_or_is_told_busy() -> None:
    at = desk(team=0.6)
    at.grant(ask("r1", max_tokens=HALF))
    at.queue(ask("r2", max_tokens=HALF))
    at.queue(ask("r3", max_tokens=HALF))
    at.now += 20 * SECOND
    at.tick()
    granted, denied = at.told("r2"), at.told("r3")
    assert isinstance(granted, Granted)
    assert granted.held_nano_usd == USD // 10
    assert isinstance(denied, Denied)
    assert denied.reason == "busy"


def test_each_budget_says_how_long_one_waits_for_it() -> None:
    at = Desk(organisation(team=[rule("team", 0.5, queue_seconds=60)], key=[rule("key", 0.5, queue_seconds=0)]))
    at.grant(ask("r1", max_tokens=HALF))
    assert at.deny(ask("r2", max_tokens=HALF)).reason == "busy"
    at.queue(ask("r3", key="key2", max_tokens=HALF))
    at.now += 59 * SECOND
    at.tick()
    assert at.late == []
    at.now += SECOND
    at.tick()
    assert isinstance(at.told("r3"), Denied)


def test_who_cannot_wait_is_told_at_once() -> None:
    at = desk(team=0.5)
    at.grant(ask("r1", max_tokens=HALF))
    assert at.deny(ask("r2", max_tokens=HALF, may_wait=False)).reason == "busy"
    assert not at.line


def test_nobody_passes_an_earlier_turn_even_with_a_smaller_wish() -> None:
    at = desk(team=0.9)
    at.grant(ask("r1", max_tokens=HALF))
    at.queue(ask("big", max_tokens=HALF))
    at.queue(ask("small", key="key2", max_tokens=100))
    at.close(usage("r1", nano_usd=1_000))
    assert isinstance(at.told("big"), Granted)
    assert isinstance(at.told("small"), Granted)


def test_no_budget_waits_for_the_line_of_another() -> None:
    at = Desk(organisation(team=[rule("team", 5)], key=[rule("key", 0.5)]))
    at.grant(ask("r1", max_tokens=HALF))
    at.queue(ask("r2", max_tokens=HALF))
    at.grant(ask("r3", key="key2", max_tokens=HALF))
    assert at.line.budgets() == ["key:key:month"]


def test_keys_take_turns_at_a_budget_so_that_a_greedy_one_delays_nobody_by_more_than_its_share() -> None:
    at = desk(team=0.5)
    at.grant(ask("r0", max_tokens=HALF))
    for n in range(1, 6):
        at.queue(ask(f"greedy{n}", max_tokens=HALF))
    for n in range(1, 3):
        at.queue(ask(f"modest{n}", key="key2", max_tokens=HALF))
    order, running = [], "r0"
    while at.line:
        at.close(usage(running, kind="void", nano_usd=0))
        (late,) = at.late
        at.late.clear()
        order.append(late.rid)
        running = late.rid
    assert order == ["greedy1", "modest1", "greedy2", "modest2", "greedy3", "greedy4", "greedy5"]


def test_an_owner_that_begins_anew_puts_them_in_the_order_in_which_they_came() -> None:
    at = desk(team=0.5)
    at.grant(ask("r0", max_tokens=HALF))
    at.queue(ask("later", max_tokens=HALF, waited_ms=3_000))
    at.queue(ask("earlier", max_tokens=HALF, waited_ms=9_000))
    at.close(usage("r0", kind="void", nano_usd=0))
    assert isinstance(at.told("earlier"), Granted)


@pytest.mark.parametrize("how", ["withdrawn", "closed"])
def test_who_goes_makes_way_and_is_never_granted_afterwards(how: str) -> None:
    at = desk(team=0.5)
    at.grant(ask("r1", max_tokens=HALF))
    at.queue(ask("r2", max_tokens=HALF))
    at.queue(ask("r3", key="key2", max_tokens=HALF))
    if how == "withdrawn":
        at.do(Withdraw(rid="r2", edge="e1", epoch=1))
    else:  # an edge that gave up waiting sent it without a verdict
        at.close(usage("r2", nano_usd=1_000))
    at.close(usage("r1", kind="void", nano_usd=0))
    assert [late.rid for late in at.late] == ["r3"]
    assert "r2" not in at.state.holds


def test_who_waits_is_told_when_the_budget_is_spent_meanwhile() -> None:
    at = desk(team=0.5)
    at.grant(ask("r1", max_tokens=HALF))
    at.queue(ask("r2", max_tokens=HALF))
    at.close(usage("r1", nano_usd=USD // 2))
    denied = at.told("r2")
    assert isinstance(denied, Denied)
    assert (denied.reason, denied.spent_nano_usd) == ("spent", USD // 2)


def test_a_raised_limit_lets_in_those_who_wait() -> None:
    at = desk(team=0.5)
    at.grant(ask("r1", max_tokens=HALF))
    at.queue(ask("r2", max_tokens=HALF))
    at.regulate(organisation(team=[rule("team", 1)], key=[rule("key", 100)]))
    assert isinstance(at.told("r2"), Granted)


def test_more_than_a_record_takes_is_let_in_by_the_next_ones() -> None:
    at = desk(team=0)
    at.regulate(organisation(team=[rule("team", 0.02)]))
    at.grant(ask("r"))
    waiting = 1_200
    for n in range(waiting):
        at.queue(ask(f"r{n}"))
    before = len(at.log)
    at.regulate(organisation(team=[rule("team", 1_000)]), rev=3)
    assert len(at.log) - before <= 501
    for _ in range(3):
        at.tick()
    assert not at.line
    assert sum(isinstance(late.answer, Granted) for late in at.late) == waiting


def test_a_key_revoked_while_it_waits_is_told_so() -> None:
    at = desk(team=0.5)
    at.grant(ask("r1", max_tokens=HALF))
    at.queue(ask("r2", max_tokens=HALF))
    at.regulate(organisation(team=[rule("team", 0.5)], revoked_at=1))
    denied = at.told("r2")
    assert isinstance(denied, Denied)
    assert denied.reason == "unknown"


def test_a_stream_that_needs_more_goes_before_everybody_who_wants_to_begin() -> None:
    at = desk(team=1)
    at.grant(ask("r1", max_tokens=HALF))
    at.grant(ask("r2", max_tokens=HALF))
    at.queue(ask("r3", max_tokens=1_000))
    assert isinstance(at.do(Extend(rid="r1", n=1, output_tokens=20_000)), Queued)
    at.close(usage("r2", nano_usd=USD * 3 // 10))
    extended = at.told("r1", 1)
    assert isinstance(extended, Granted)
    assert extended.held_output_tokens == 20_000
    assert at.late == [], "nothing is left for who waits to begin"
    at.close(usage("r1", nano_usd=USD // 2))
    assert isinstance(at.told("r3"), Granted)


def test_while_a_stream_waits_for_more_nobody_is_let_in_at_that_budget() -> None:
    at = desk(team=1)
    at.grant(ask("r1", max_tokens=HALF))
    at.grant(ask("r2", max_tokens=30_000))
    assert isinstance(at.do(Extend(rid="r1", n=1, output_tokens=20_000)), Queued)
    at.queue(ask("r3", max_tokens=1_000))  # there would be room for it
    at.close(usage("r2", nano_usd=1_000))
    assert isinstance(at.told("r1", 1), Granted)
    assert isinstance(at.told("r3"), Granted)


def test_the_older_stream_is_extended_first() -> None:
    at = desk(team=1.2)
    for rid in ("r1", "r2"):
        at.grant(ask(rid, max_tokens=HALF))
    for rid in ("r1", "r2"):
        assert isinstance(at.do(Extend(rid=rid, n=1, output_tokens=30_000)), Queued)
    at.do(Extend(rid="r2", n=1, output_tokens=30_000))  # asked again, it keeps its place and no more
    at.close(usage("r2", nano_usd=1_000))
    assert isinstance(at.told("r1", 1), Granted)
    assert at.late == [], "r2 has ended and wishes nothing any more"
    assert not at.line


def test_the_line_is_empty_when_all_are_gone() -> None:
    line = Line()
    assert not line
    assert line.budgets() == []
    assert not line.is_before("b", "r")
    assert line.ahead("r") == 0
