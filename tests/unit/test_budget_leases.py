"""Leases: what budget lends, and what becomes of it."""

from typing import Any

import msgspec
import pytest

from services.budget.core.estates import Estates
from services.budget.core.leases import GiveBack, Lend, Lent, Policy
from services.budget.core.presence import Presence
from services.edge.core.lease import Purse
from shared.contracts.budget import Bound, Cut, Granted, Withdraw
from shared.contracts.config import RateLimits
from shared.contracts.edge import EdgeStatus
from shared.contracts.leases import LeaseAnswered, LeaseAsked, Terms
from shared.contracts.ledger import Entry, Held, Leased, Returned
from shared.contracts.pricing import UsagePriced
from tests.fixtures import budget as make
from tests.fixtures.budget import DAY, NOW, PRINCIPAL, SECOND, USD, Desk, ask, organisation, usage

TEAM = "team:team:month"
POLICY = Policy()
BOLD = Policy(share_percent=30, lent_percent=60, kept_percent=10)
BOUND = 11_000_000  # of `ask()`, nano-USD


def desk_of(team_usd: float = 100, **more: object) -> Desk:
    return Desk(organisation(team=[make.rule("team", team_usd, **more)]))  # type: ignore[arg-type]  # fields by name


def lend(desk: Desk, lease: str = "l1", attempts: int = 10, policy: Policy = POLICY, **like: object) -> Terms | None:
    lent = desk.do(Lend(LeaseAsked(lease=lease, like=ask("like", **like), attempts=attempts), policy))  # type: ignore[arg-type]  # fields by name
    assert isinstance(lent, Lent)
    return lent.terms


def lent(desk: Desk, lease: str = "l1", attempts: int = 10, policy: Policy = POLICY, **like: object) -> Terms:
    terms = lend(desk, lease, attempts, policy, **like)
    assert terms
    return terms


def purse_with(terms: Terms, desk: Desk, lease: str = "l1") -> Purse:
    purse = Purse()
    answer = LeaseAnswered(lease=lease, owner_epoch=0, terms=terms)
    purse.answered(LeaseAsked(lease=lease, like=ask("like"), attempts=1), answer, desk.now)
    return purse


def drawn(purse: Purse, rid: str, desk: Desk, **more: object) -> Granted:
    granted = purse.draw(ask(rid, **more), desk.now)  # type: ignore[arg-type]  # fields by name
    assert granted
    return granted


def tell(purse: Purse, desk: Desk) -> None:
    while message := purse.to_tell():
        desk.do(message)
        purse.told(message)


def closing(granted: Granted, rid: str, nano_usd: int = 5_000_000, kind: str = "settled") -> UsagePriced:
    return usage(rid, kind, nano_usd, charges=granted.charges, held_nano_usd=granted.held_nano_usd, lease=granted.lease)


# What is lent.


def test_a_lease_is_held_on_every_budget_of_the_path() -> None:
    desk = Desk(organisation(team=[make.rule("team", 100)], key=[make.rule("key", 50)]))
    terms = lent(desk)
    assert terms.nano_usd == 10 * BOUND
    assert desk.booked(TEAM) == desk.booked("key:key:month") == (0, 10 * BOUND)
    assert [charge.budget_id for charge in terms.charges] == [TEAM, "key:key:month"]


def test_asked_again_it_answers_the_same_and_lends_once() -> None:
    desk = desk_of()
    assert lend(desk) == lend(desk)
    assert desk.booked(TEAM)[1] == 10 * BOUND


def test_one_lease_takes_a_small_share_of_what_is_free_and_all_of_them_little_more() -> None:
    desk = desk_of(10)
    assert lent(desk, attempts=1_000).nano_usd == 10 * USD * 2 // 100
    more = [lend(desk, f"m{n}", attempts=1_000) for n in range(20)]
    assert more[-1] is None
    assert desk.booked(TEAM)[1] <= USD


def test_what_would_pay_for_few_of_many_attempts_is_not_lent() -> None:
    """Attempts that cost a good part of a small budget are decided one by one."""
    desk = desk_of(10)
    assert lent(desk, attempts=10, max_tokens=2_000).nano_usd == 10 * USD * 2 // 100
    assert lend(desk, "l2", attempts=10, max_tokens=8_000) is None
    assert lend(desk, "l3", attempts=2, max_tokens=8_000) is not None, "no more than two are expected"


def test_near_the_cap_nothing_is_lent() -> None:
    desk = desk_of(10)
    assert lend(desk) is not None
    desk.grant(ask("big", stream=False, max_tokens=32_000))
    desk.close(usage("spent", nano_usd=79 * USD // 10, charges=desk.state.leases["l1"].leased.terms.charges))
    assert lend(desk, "l2") is None


@pytest.mark.parametrize("like", [{"max_tokens": 0}, {"bounds": (Bound(meter="unboundable", quantity=1),)}])
def test_what_an_edge_cannot_size_is_not_lent_for(like: dict[str, Any]) -> None:
    assert lend(desk_of(), **like) is None


def test_where_only_budget_can_decide_nothing_is_lent() -> None:
    with_sessions = Desk(organisation(team=[make.rule("team", 100)], session_usd=1))
    revoked = Desk(organisation(team=[make.rule("team", 100)], revoked_at=NOW + DAY))
    soft = Desk(organisation(team=[make.rule("team", 100, mode="soft")]))
    limited = Desk(
        [
            msgspec.structs.replace(entity, rate_limits=RateLimits(requests_per_minute=5))
            if getattr(entity, "uid", "") == "team"
            else entity
            for entity in organisation(team=[make.rule("team", 100)])
        ]
    )
    assert [lend(desk) for desk in (with_sessions, revoked, soft, limited)] == [None] * 4


def test_an_edge_that_knows_another_organisation_gets_no_lease() -> None:
    assert lend(desk_of(), config_rev=2) is None


def test_while_somebody_waits_there_nothing_is_lent() -> None:
    desk = desk_of(1)
    for n in range(3):
        desk.grant(ask(f"r{n}", stream=False, max_tokens=30_000))
    desk.queue(ask("waits", stream=False, max_tokens=30_000))
    assert lend(desk, attempts=1, policy=BOLD, max_tokens=100) is None


def test_a_key_whose_conversation_was_cut_gets_no_lease_for_a_while() -> None:
    desk = desk_of()
    desk.grant(ask("r1"))
    desk.do(Cut(rid="r1", budget_id=TEAM, principal=PRINCIPAL, session="s"))
    assert lend(desk) is None
    desk.now += 61 * SECOND
    assert lend(desk) is not None


def test_a_lease_ends_with_the_first_period_on_its_path() -> None:
    desk = Desk(organisation(team=[make.rule("team", 100, "hour")]), now=NOW + 3_590 * SECOND)
    assert lent(desk).until == NOW + 3_600 * SECOND
    desk.now = NOW + 3_597 * SECOND
    assert lend(desk, "l2") is None


# What becomes of it.


def test_an_attempt_on_a_lease_becomes_a_hold_and_nothing_more_is_held() -> None:
    desk = desk_of()
    purse = purse_with(lent(desk), desk)
    granted = drawn(purse, "r1", desk)
    before = desk.booked(TEAM)
    tell(purse, desk)
    assert desk.booked(TEAM) == before
    held = desk.state.holds["r1"].held
    assert (held.nano_usd, held.charges, held.lease) == (granted.held_nano_usd, granted.charges, "l1")
    assert desk.state.leases["l1"].nano_usd == 9 * BOUND


def test_told_twice_it_is_held_once() -> None:
    desk = desk_of()
    purse = purse_with(lent(desk), desk)
    drawn(purse, "r1", desk)
    message = purse.to_tell()
    assert message
    desk.do(message)
    desk.do(message)
    assert [type(event) for event in desk.log] == [Leased, Held]


def test_an_end_that_comes_before_its_beginning_is_paid_from_the_lease() -> None:
    desk = desk_of()
    purse = purse_with(lent(desk), desk)
    granted = drawn(purse, "r1", desk)
    desk.close(closing(granted, "r1"))
    assert desk.booked(TEAM) == (5_000_000, 9 * BOUND)
    tell(purse, desk)
    assert desk.booked(TEAM) == (5_000_000, 9 * BOUND)
    entry = desk.log[-1]
    assert isinstance(entry, Entry)
    assert (entry.held_nano_usd, entry.overrun_nano_usd) == (BOUND, 0)


def test_a_withdrawn_attempt_is_paid_from_the_lease_only_once() -> None:
    desk = desk_of()
    purse = purse_with(lent(desk), desk)
    granted = drawn(purse, "r1", desk)
    tell(purse, desk)
    desk.do(Withdraw(rid="r1", edge="e1", epoch=1))
    desk.close(closing(granted, "r1", 0, "void"))
    assert desk.booked(TEAM) == (0, 9 * BOUND)
    assert desk.state.leases["l1"].nano_usd == 9 * BOUND


def test_a_withdrawal_that_comes_first_leaves_its_money_on_the_lease_until_that_is_returned() -> None:
    desk = desk_of()
    purse = purse_with(lent(desk), desk)
    drawn(purse, "r1", desk)
    desk.do(Withdraw(rid="r1", edge="e1", epoch=1))
    tell(purse, desk)
    assert "r1" not in desk.state.holds
    desk.do(GiveBack("l1"))
    assert desk.booked(TEAM) == (0, 0)


def test_what_is_returned_is_free_and_its_id_is_dead() -> None:
    desk = desk_of()
    purse = purse_with(lent(desk), desk)
    drawn(purse, "r1", desk)
    tell(purse, desk)
    desk.do(GiveBack("l1"))
    desk.do(GiveBack("l1"))
    assert desk.booked(TEAM) == (0, BOUND)
    assert lend(desk) is None
    assert [type(event) for event in desk.log] == [Leased, Held, Returned]


def test_a_return_that_overtakes_its_question_keeps_the_lease_from_being_lent() -> None:
    desk = desk_of()
    desk.do(GiveBack("l1"))
    assert lend(desk) is None


def test_who_waits_gets_what_a_lease_gives_back() -> None:
    desk = desk_of(1)
    lent(desk, attempts=80, policy=BOLD)
    desk.grant(ask("r1", stream=False, max_tokens=32_000))
    desk.grant(ask("r2", stream=False, max_tokens=25_000))
    desk.queue(ask("r3", stream=False, max_tokens=30_000))
    desk.do(GiveBack("l1"))
    assert isinstance(desk.told("r3"), Granted)


def test_a_draw_without_its_lease_holds_nothing_and_is_booked_by_its_entry() -> None:
    desk = desk_of()
    purse = purse_with(lent(desk), desk)
    granted = drawn(purse, "r1", desk)
    desk.do(GiveBack("l1"))
    tell(purse, desk)
    assert "r1" not in desk.state.holds
    desk.close(closing(granted, "r1"))
    assert desk.booked(TEAM) == (5_000_000, 0)


def test_a_hold_on_a_lease_that_is_told_of_late_is_not_taken_for_forgotten() -> None:
    desk = desk_of()
    purse = purse_with(lent(desk), desk)
    drawn(purse, "r1", desk)
    desk.now += 200 * SECOND
    tell(purse, desk)
    presence = Presence(60 * SECOND, NOW)
    assert list(presence.forgotten(desk.state.holds, desk.now)) == []
    assert list(presence.forgotten(desk.state.holds, desk.now + 61 * SECOND)) == ["r1"]


# The leases of the dead.


def status(epoch: int, delivered: int) -> EdgeStatus:
    return EdgeStatus(edge="e1", epoch=epoch, at=0, delivered_epoch=delivered)


def test_a_dead_edges_lease_is_freed_once_its_records_are_delivered_priced_and_applied() -> None:
    desk, estates = desk_of(), Estates()
    lent(desk)
    leases = desk.state.leases
    estates.heard(status(epoch=2, delivered=0))
    assert not estates.concerns(leases)
    estates.heard(status(epoch=2, delivered=1))
    assert estates.concerns(leases)
    assert list(estates.settled(leases, recorded=10, priced=(7, 9), applied=7)) == []
    assert list(estates.settled(leases, recorded=12, priced=(8, 10), applied=7)) == []
    assert list(estates.settled(leases, recorded=13, priced=(9, 12), applied=8)) == ["l1"]


def test_the_leases_of_the_living_are_left_alone() -> None:
    desk, estates = desk_of(), Estates()
    lent(desk, epoch=2)
    estates.heard(status(epoch=2, delivered=1))
    assert not estates.concerns(desk.state.leases)
    assert list(estates.settled(desk.state.leases, 0, (0, 0), 0)) == []
