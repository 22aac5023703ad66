"""What becomes of a hold: trued up, extended, cut, withdrawn, closed, expired, corrected."""

import pytest

from services.budget.core.presence import Presence
from services.budget.core.step import Expire
from shared.contracts.attribution import Charge
from shared.contracts.budget import Bound, Cut, Denied, Extend, Granted, TrueUp, Withdraw
from shared.contracts.edge import EdgeStatus
from shared.contracts.ledger import Entry
from tests.fixtures.budget import DAY, NOW, PRINCIPAL, SECOND, USD, Desk, ask, organisation, rule, usage

MILLI = USD // 1_000
KEY = "key:key:month"


def desk_with_hold(limit_usd: float = 1, **more: object) -> Desk:
    desk = Desk(organisation(key=[rule("key", limit_usd)]))
    desk.grant(ask(**more))  # type: ignore[arg-type]  # by name
    return desk


def entries(desk: Desk) -> list[Entry]:
    return [event for event in desk.log if isinstance(event, Entry)]


def test_a_close_releases_the_hold_and_books_the_cost() -> None:
    desk = desk_with_hold()
    desk.now += SECOND
    desk.close(usage())
    (entry,) = entries(desk)
    assert (entry.event_id, entry.kind, entry.corrects) == ("r1:0", "settled", "")
    assert (entry.held_nano_usd, entry.overrun_nano_usd, entry.late) == (11 * MILLI, 0, False)
    assert (entry.admitted_at, entry.booked_at) == (NOW, NOW + SECOND)
    assert desk.booked(KEY) == (5 * MILLI, 0)
    assert desk.state.priced.seq == 1


def test_a_duplicate_close_books_nothing_but_moves_on() -> None:
    desk = desk_with_hold()
    desk.close(usage())
    desk.close(usage())
    assert len(entries(desk)) == 1
    assert desk.state.priced.seq == 2


def test_cost_above_the_hold_is_booked_in_full_and_named() -> None:
    desk = desk_with_hold()
    desk.close(usage(nano_usd=20 * MILLI))
    assert entries(desk)[0].overrun_nano_usd == 9 * MILLI
    assert desk.booked(KEY) == (20 * MILLI, 0)


def test_an_attempt_without_a_hold_counts_on_its_whole_path_in_the_period_it_was_sent_in() -> None:
    desk = Desk(organisation(team=[rule("team", 1, "day")], key=[rule("key", 1)]))
    desk.close(usage(sent_at=NOW - DAY))
    (entry,) = entries(desk)
    assert [(c.budget_id, c.period_id) for c in entry.charges] == [
        ("team:team:day", "2026-11-20T00:00:00+00:00[UTC]"),
        (KEY, "2026-11-01T00:00:00+00:00[UTC]"),
    ]
    assert entry.late
    assert desk.booked(KEY) == (5 * MILLI, 0)
    assert desk.booked("team:team:day") == (0, 0)


def test_an_attempt_whose_hold_was_lost_counts_on_the_budgets_it_was_granted_on() -> None:
    desk = Desk(organisation(team=[rule("team", 1)], key=[rule("key", 1)]))
    charge = Charge(budget_id=KEY, period_id="2026-11-01T00:00:00+00:00[UTC]")
    desk.close(usage(charges=(charge,)))
    assert entries(desk)[0].charges == (charge,)


def test_a_close_posts_to_the_period_of_its_grant_even_late() -> None:
    desk = Desk(organisation(key=[rule("key", 1, "day")]))
    desk.grant(ask())
    desk.now += DAY
    desk.close(usage())
    (entry,) = entries(desk)
    assert entry.late
    assert entry.charges[0].period_id == "2026-11-21T00:00:00+00:00[UTC]"
    assert desk.booked("key:key:day") == (0, 0)


def test_a_hold_that_nobody_lists_becomes_provisional_spend_in_full() -> None:
    desk = desk_with_hold()
    desk.do(Expire("r1"))
    (entry,) = entries(desk)
    assert (entry.kind, entry.usage.usage.kind, entry.usage.usage.estimated) == ("expired", "expired", True)
    assert entry.usage.cost_nano_usd == sum(line.cost_pico_usd for line in entry.usage.lines) // 1_000 == 11 * MILLI
    assert desk.booked(KEY) == (11 * MILLI, 0)
    assert desk.deny(ask()).reason == "too_late"
    desk.do(Expire("r1"))
    assert len(entries(desk)) == 1


@pytest.mark.parametrize(
    "kinds",
    [
        ("expired", "settled"),
        ("expired", "void", "recovered", "settled"),
        ("void", "settled"),
        ("recovered", "settled"),
        ("expired", "recovered"),
    ],
)
def test_a_better_record_corrects_a_worse_one_so_that_the_sum_is_the_best(kinds: tuple[str, ...]) -> None:
    costs = {"void": 0, "recovered": 8 * MILLI, "settled": 3 * MILLI}
    desk = desk_with_hold()
    for kind in kinds:
        if kind == "expired":
            desk.do(Expire("r1"))
        else:
            desk.close(usage(kind=kind, nano_usd=costs[kind]))
    found = entries(desk)
    assert [entry.event_id for entry in found] == [f"r1:{n}" for n in range(len(kinds))]
    assert [entry.kind for entry in found] == [kinds[0], *["correction"] * (len(kinds) - 1)]
    assert [entry.corrects for entry in found] == ["", *(f"r1:{n}" for n in range(len(kinds) - 1))]
    assert sum(entry.usage.cost_nano_usd for entry in found) == costs[kinds[-1]]
    tokens: dict[str, int] = {}
    for entry in found:
        for priced in entry.usage.lines:
            tokens[priced.line.meter] = tokens.get(priced.line.meter, 0) + priced.line.quantity
    assert tokens == {"output": costs[kinds[-1]] // 10_000} | ({"hold": 0} if "expired" in kinds else {})
    assert desk.booked(KEY) == (costs[kinds[-1]], 0)


@pytest.mark.parametrize("kinds", [("settled", "recovered"), ("settled", "void"), ("recovered", "void")])
def test_a_worse_record_changes_nothing(kinds: tuple[str, str]) -> None:
    desk = desk_with_hold()
    for kind in kinds:
        desk.close(usage(kind=kind))
    assert len(entries(desk)) == 1


def test_a_correction_is_booked_where_the_first_entry_was() -> None:
    desk = Desk(organisation(key=[rule("key", 1, "day")]))
    desk.grant(ask())
    desk.do(Expire("r1"))
    desk.now += DAY
    desk.close(usage())
    first, second = entries(desk)
    assert second.charges == first.charges
    assert second.late
    assert desk.booked("key:key:day") == (0, 0)


def test_a_withdrawn_attempt_is_free_again_and_still_gets_its_closing_entry() -> None:
    desk = desk_with_hold()
    withdraw = Withdraw(rid="r1", edge="e1", epoch=1)
    desk.do(withdraw)
    desk.do(withdraw)
    assert desk.booked(KEY) == (0, 0)
    desk.close(usage(kind="void", nano_usd=0))
    assert [entry.kind for entry in entries(desk)] == ["void"]
    assert len(desk.log) == 3


def test_a_true_up_gives_back_the_unused_input_once() -> None:
    desk = desk_with_hold(text_bytes=100_000)
    assert desk.booked(KEY) == (0, 71 * MILLI)
    desk.do(TrueUp(rid="r1", input_tokens=20_000, nano_usd=5 * MILLI))
    assert desk.booked(KEY) == (0, 15 * MILLI)
    desk.do(TrueUp(rid="r1", input_tokens=1_000, nano_usd=1 * MILLI))
    assert desk.booked(KEY) == (0, 15 * MILLI)


def test_a_true_up_without_an_amount_is_priced_at_the_rate_of_the_hold() -> None:
    desk = desk_with_hold(text_bytes=100_000)
    desk.do(TrueUp(rid="r1", input_tokens=20_000, nano_usd=0))
    assert desk.booked(KEY) == (0, 30 * MILLI)


def test_a_true_up_before_anything_was_counted_gives_nothing_back() -> None:
    desk = desk_with_hold(text_bytes=100_000)
    desk.do(TrueUp(rid="r1", input_tokens=0, nano_usd=0))
    assert desk.booked(KEY) == (0, 71 * MILLI)


def test_more_input_than_was_held_is_taken_from_the_output_part() -> None:
    desk = desk_with_hold()
    desk.do(TrueUp(rid="r1", input_tokens=3_000, nano_usd=3 * MILLI))
    assert desk.booked(KEY) == (0, 11 * MILLI)


def test_what_could_not_be_bounded_is_not_trued_up_early() -> None:
    desk = desk_with_hold(bounds=(Bound(meter="unboundable", quantity=1),))
    before = desk.booked(KEY)
    desk.do(TrueUp(rid="r1", input_tokens=1, nano_usd=1))
    assert desk.booked(KEY) == before


def test_an_extension_grows_the_hold_when_it_is_free_everywhere() -> None:
    desk = desk_with_hold(0.02)
    extend = Extend(rid="r1", n=1, output_tokens=500)
    for _ in range(2):
        answer = desk.do(extend)
        assert isinstance(answer, Granted)
        assert answer.held_output_tokens == 500
    assert desk.booked(KEY) == (0, 16 * MILLI)
    partly = desk.do(Extend(rid="r1", n=2, output_tokens=500))
    assert isinstance(partly, Granted)
    assert partly.held_output_tokens == 400, "what is left, where all of it can never be"
    refused = desk.do(Extend(rid="r1", n=3, output_tokens=500))
    assert isinstance(refused, Denied)
    assert (refused.budget_id, refused.at_cap) == (KEY, "cut")
    desk.close(usage())
    late = desk.do(extend)
    assert isinstance(late, Denied)
    assert late.reason == "too_late"
    assert desk.booked(KEY) == (5 * MILLI, 0)


def test_the_conversation_that_was_cut_is_refused_for_a_minute() -> None:
    desk = desk_with_hold()
    cut = Cut(rid="r1", budget_id=KEY, principal=PRINCIPAL, session="s", agent="a", body_digest=b"d")
    desk.do(cut)
    assert desk.deny(ask("r2", session="s", agent="a")).reason == "spent"
    desk.grant(ask("r3", session="s", agent="other"))
    desk.now += 60 * SECOND
    desk.grant(ask("r4", session="s", agent="a"))


def test_without_a_session_it_is_the_body_that_was_cut() -> None:
    desk = desk_with_hold()
    desk.do(Cut(rid="r1", budget_id=KEY, principal=PRINCIPAL, body_digest=b"d"))
    assert desk.deny(ask("r2", body_digest=b"d")).reason == "spent"
    desk.grant(ask("r3", body_digest=b"e"))


def status(*live: str, edge: str = "e1", epoch: int = 1) -> EdgeStatus:
    return EdgeStatus(edge=edge, epoch=epoch, at=0, live=live)


def test_a_hold_lives_while_its_edge_lists_it() -> None:
    desk = desk_with_hold()
    presence = Presence(60 * SECOND, NOW)
    for minute in range(10):
        now = NOW + minute * 60 * SECOND
        presence.heard(status("r1"), now)
        assert list(presence.forgotten(desk.state.holds, now + 50 * SECOND)) == []
    assert list(presence.forgotten(desk.state.holds, NOW + 601 * SECOND)) == ["r1"]


def test_nothing_follows_from_silence_while_nobody_could_be_heard() -> None:
    desk = desk_with_hold()
    presence = Presence(60 * SECOND, NOW)
    presence.spare(NOW + 300 * SECOND)
    assert list(presence.forgotten(desk.state.holds, NOW + 330 * SECOND)) == []
    assert list(presence.forgotten(desk.state.holds, NOW + 361 * SECOND)) == ["r1"]


def test_an_edge_is_new_at_each_of_its_starts_and_gone_after_silence() -> None:
    presence = Presence(60 * SECOND, NOW)
    presence.expect("e1", NOW)
    assert presence.heard(status(), NOW)
    assert not presence.heard(status(), NOW)
    assert presence.heard(status(epoch=2), NOW)
    assert presence.edges(NOW + 60 * SECOND) == ["e1"]
    assert presence.edges(NOW + 61 * SECOND) == []
