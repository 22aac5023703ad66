"""An organisation moves from one shard to another: all of its state goes with it, each part once, whoever dies on the way."""

import copy
import hashlib

import msgspec
import pytest

from services.budget.core import blocks, luggage
from services.budget.core.inspection import NO_RECORD, Inspection
from services.budget.core.leases import GiveBack, Lend, Lent, Policy
from services.budget.core.luggage import Luggage, Stay
from services.budget.core.moves import Arrive, Come, Depart, HandOver, Home, Leave, PassOn, next_step
from services.budget.core.snapshot import capture, restore, rid_parts, unsound
from services.budget.core.state import State
from services.budget.core.step import SILENT, Close, Expire
from shared.contracts.budget import Cut, Denied, Extend, Granted, LuggagePart, TrueUp, Withdraw
from shared.contracts.config import Entity, Grant, RateLimits
from shared.contracts.leases import Draw, Drawn, LeaseAsked
from shared.contracts.ledger import Commit, EpochBegan, Lapsed, LedgerEvent
from shared.contracts.message import encode
from shared.contracts.streams import Position
from tests.fixtures.budget import NOW, PRINCIPAL, SECOND, USD, Desk, ask, organisation, rule, usage

UIDS = ("org", "cus", "team", "key", "key2", "prov", "grant")
LIMITS = RateLimits(requests_per_minute=100, tokens_per_minute=1_000_000, concurrent_requests=50)
STAYS = {"owner_epoch", "config_rev", "version", "priced", "stays", "moved"}
"""What a state has of its shard, and not of an organisation."""


def entities() -> list[Entity]:
    found = organisation(
        org=[rule("org", 1_000)], team=[rule("team", 50, "day")], key=[rule("key", 6, "total")], session_usd=5
    )
    return [msgspec.structs.replace(e, rate_limits=LIMITS) if e.uid == "key" else e for e in found]


def desk() -> Desk:
    """With everything in it that a state can have."""
    made = Desk([*entities(), Grant(uid="grant", org="org", budget_id="b", nano_usd=USD, granted_at=NOW)])
    began = EpochBegan(owner_epoch=1, at=NOW)
    made.state.apply(began)
    made.log.append(began)
    for rid in ("settled", "expired", "recovered", "corrected", "live", "trued", "withdrawn"):
        made.grant(ask(rid, session="s", agent="a", text_bytes=5_000))
    made.do(TrueUp(rid="trued", input_tokens=500, nano_usd=400_000))
    made.do(Extend(rid="trued", n=1, output_tokens=100))
    made.close(usage("settled"))
    made.do(Expire("expired"))
    made.close(usage("recovered", "recovered"))
    made.do(Expire("corrected"))
    made.close(usage("corrected", nano_usd=7_000_000))
    made.do(Withdraw(rid="withdrawn", edge="e1", epoch=1))
    made.do(Cut(rid="live", budget_id="key:key:total", principal=PRINCIPAL, session="cut", agent="a"))
    lent = made.do(Lend(LeaseAsked(lease="lease", like=ask("like", key="key2"), attempts=4), Policy(share_percent=30)))
    assert isinstance(lent, Lent) and lent.terms
    made.close(usage("ungoverned", nano_usd=6 * USD, ungoverned=True))
    lapsed = Lapsed(grant="grant", budget_id="b", period_id="total", used_nano_usd=3, at=NOW)
    happened: list[LedgerEvent] = [*blocks.due(made.state, made.rules, ["key:key"], NOW), lapsed]
    for event in happened:
        made.state.apply(event)
        made.log.append(event)
    return made


def depart(source: Desk, to: str = "1", move: int = 5) -> None:
    source.do(Depart("org", move, to, UIDS[:3], whole=False))
    source.do(Depart("org", move, to, UIDS[3:], whole=True))


def fetch(source: Desk, after: int, most_bytes: int = 700, move: int = 5) -> LuggagePart:
    """As the owner of the shard it has left answers."""
    stay = source.state.stays["org"]
    assert stay.phase == "left"
    pieces = luggage.pieces(stay.luggage)
    data, count = luggage.part(pieces, after, most_bytes)
    whole = after + count >= len(pieces)
    return LuggagePart(org="org", move=move, after=after, pieces=count, data=data, whole=whole)


def bring(source: Desk, target: Desk, shard: str = "0", move: int = 5) -> int:
    """All parts, each sent twice; returns how many there were."""
    parts = 0
    while (stay := target.state.stays.get("org")) is None or stay.phase != "here":
        part = fetch(source, stay.pieces if stay and stay.move == move else 0, move=move)
        for _ in range(2):
            target.do(Arrive(shard, part))
        parts += 1
    return parts


def moved() -> tuple[State, Desk, Desk]:
    """The state before, and both shards after."""
    source, target = desk(), Desk(entities())
    before = copy.deepcopy(source.state)
    depart(source)
    bring(source, target)
    return before, source, target


def unsettled(state: State) -> dict[str, object]:
    return {rid: one for rid, one in state.closings.others.items() if one.kind != "settled"}


def test_every_field_of_the_state_is_known_to_move_or_to_stay() -> None:
    """Who adds a field has to say what becomes of it: in Luggage and its two folds, or in STAYS."""
    of_organisations = {"counters", "holds", "tombstones", "decisions", "marks", "lapsed", "closings", "leases"}
    assert set(State.__struct_fields__) == STAYS | of_organisations | {"learned", "rates"}
    inner = {"output", "percent", "windows", "live", "asking", "ended", "tokens"}
    assert {*Luggage.__struct_fields__} == of_organisations | inner


def test_all_that_an_organisation_had_is_in_the_other_shard() -> None:
    before, _, target = moved()
    after = target.state
    for name in ("counters", "holds", "tombstones", "marks", "lapsed", "rates", "learned", "leases"):
        assert getattr(after, name) == getattr(before, name), name
        assert getattr(after, name), name
    assert unsettled(after) == unsettled(before) != {}
    assert {scope: one.state for scope, one in after.decisions.items()} == {"key:key": "block"}
    assert not unsound(after)


def test_nothing_of_it_is_left_in_the_shard_it_left_but_what_was_settled_there() -> None:
    _, source, _ = moved()
    state = source.state
    assert not (state.leases or state.counters or state.holds or state.decisions or state.marks or state.lapsed)
    assert not (state.learned.output or state.rates.asking or state.rates.live or state.rates.tokens)
    assert not unsettled(state) and {"settled", "corrected", "ungoverned"} <= set(state.closings)
    assert not unsound(state)
    source.do(HandOver("org", 5))
    assert state.stays["org"] == Stay(5, "gone", "1")


def test_it_arrives_in_many_parts_and_a_part_that_comes_twice_counts_once() -> None:
    source, target = desk(), Desk(entities())
    depart(source)
    assert bring(source, target) > 5
    arrived = [event for event in target.log if type(event).__name__ == "Arrived"]
    assert len({event.after for event in arrived}) == len(arrived)  # type: ignore[union-attr]  # all are Arrived


@pytest.mark.parametrize("dies_after", range(1, 12))
def test_an_owner_that_dies_on_the_way_goes_on_from_its_ledger(dies_after: int) -> None:
    before, _, whole = moved()
    source, target = desk(), Desk(entities())
    depart(source)
    for count in range(100):
        stay = target.state.stays.get("org")
        if stay and stay.phase == "here":
            break
        target.do(Arrive("0", fetch(source, stay.pieces if stay else 0)))
        if count == dies_after:
            source.state, target.state = replayed(source), replayed(target)
    assert target.state == whole.state
    assert target.state.holds == before.holds


def replayed(of: Desk) -> State:
    state = State()
    for event in of.log:
        state.apply(event)
    state.priced = of.state.priced
    assert state == of.state
    return state


def test_a_snapshot_in_the_middle_of_a_move_is_the_state() -> None:
    source = desk()
    depart(source)
    captured = capture(source.state, Position(log_id="l", seq=9), b"d", source.state.priced)
    source.state.closings.thaw()
    assert restore(captured.head, rid_parts(captured.settled)) == source.state


def test_between_leaving_and_the_last_part_nobody_decides_for_it() -> None:
    source, target = desk(), Desk(entities())
    depart(source)
    for shard in (source, target):
        if shard is target:
            target.do(Arrive("0", fetch(source, 0)))
        assert shard.do(ask("new")) is SILENT
        assert shard.do(Extend(rid="live", n=1, output_tokens=500, org="org")) is SILENT
        assert shard.do(Withdraw(rid="live", edge="e1", epoch=1, org="org")) is SILENT
        assert shard.do(Cut(rid="live", budget_id="key:key:total", principal=PRINCIPAL)) is SILENT
        assert shard.do(Close(usage("live"), None)) is SILENT
    bring(source, target)
    answer = target.do(Extend(rid="live", n=1, output_tokens=500, org="org"))
    assert isinstance(answer, Denied) and answer.reason == "spent", "it knows the hold, and what was spent before"
    assert source.do(Extend(rid="live", n=1, output_tokens=500)) is SILENT  # of an edge that has not heard of it


def test_who_stands_in_line_is_told_nothing_and_asks_again_where_it_lives_then() -> None:
    source, target = Desk(organisation(key=[rule("key", 0.011)])), Desk(organisation(key=[rule("key", 0.011)]))
    source.grant(ask("first"))
    source.queue(ask("second"))
    depart(source)
    assert not source.line and not source.late
    bring(source, target)
    target.queue(ask("second", waited_ms=1_000))
    target.do(Close(usage("first", nano_usd=0), None))
    assert isinstance(target.told("second"), Granted)


def test_a_cap_holds_over_the_move() -> None:
    source, target = Desk(organisation(key=[rule("key", 0.035)])), Desk(organisation(key=[rule("key", 0.035)]))
    for number in range(3):
        source.grant(ask(f"r{number}"))
    depart(source)
    bring(source, target)
    assert target.booked("key:key:month") == (0, 33_000_000)
    target.queue(ask("r3"))


def test_a_close_that_comes_late_to_the_old_shard_is_booked_once_in_the_new_one() -> None:
    _, source, target = moved()
    at = Position(log_id="p", seq=90)
    spent, _ = target.booked("org:org:month")
    for kind in ("recovered", "settled", "settled"):
        target.do(Close(usage("live", kind, 2_000_000), None))
        source.do(PassOn("live", "1", kind == "settled", at))
    assert target.booked("org:org:month")[0] == spent + 2_000_000
    assert "live" in source.state.closings and "live" not in source.state.moved
    assert source.state.priced == at


def test_an_attempt_that_expired_in_the_old_shard_is_corrected_in_the_new_one() -> None:
    _, _, target = moved()
    spent, _ = target.booked("org:org:month")
    held = target.state.closings["expired"].cost_nano_usd
    target.do(Close(usage("expired", nano_usd=1_000_000), None))
    assert target.booked("org:org:month")[0] == spent - held + 1_000_000
    assert target.state.closings["expired"].kind == "settled"


def test_an_attempt_withdrawn_on_the_way_holds_nothing_afterwards() -> None:
    source, target = Desk(organisation(key=[rule("key", 1)])), Desk(organisation(key=[rule("key", 1)]))
    source.grant(ask("r1"))
    depart(source)
    target.do(Withdraw(rid="r1", edge="e1", epoch=1))  # of an edge that does not say whose it is
    bring(source, target)
    assert target.booked("key:key:month") == (0, 0)
    assert not target.state.holds and not unsound(target.state)


def test_a_lease_goes_on_where_the_organisation_lives_then() -> None:
    _, source, target = moved()
    lent = target.state.leases["lease"].nano_usd
    draw = Draw(
        ask=ask("drawn", key="key2"),
        admitted_at=NOW,
        nano_usd=lent // 2,
        input_nano_usd=1,
        input_tokens=1,
        output_tokens=1,
    )
    drawn = Drawn(lease="lease", draws=(draw,))
    _, held = target.booked("org:org:month")
    assert source.do(drawn) is SILENT
    assert source.do(GiveBack("lease")) is SILENT
    target.do(drawn)
    assert target.state.holds["drawn"].nano_usd == lent // 2
    assert target.booked("org:org:month")[1] == held
    target.do(GiveBack("lease"))
    assert target.booked("org:org:month")[1] == held - (lent - lent // 2)
    assert not target.state.leases and not unsound(target.state)
    assert source.do(Lend(LeaseAsked(lease="other", like=ask("like", key="key2"), attempts=4), Policy())) == Lent(None)


def test_it_comes_back_with_what_happened_meanwhile() -> None:
    _, source, target = moved()
    source.do(HandOver("org", 5))
    target.do(Close(usage("live", nano_usd=2_000_000), None))
    source.do(PassOn("live", "1", True, Position(log_id="p", seq=99)))
    target.now = source.now = NOW + 5 * SECOND
    target.grant(ask("there", key="key2", session="t"))
    counters = {key: counter.cost_nano_usd for key, counter in target.state.counters.items()}
    depart(target, to="0", move=8)
    bring(target, source, shard="1", move=8)
    assert {key: counter.cost_nano_usd for key, counter in source.state.counters.items()} == counters
    assert set(source.state.holds) == {"trued", "there"} and set(source.state.leases) == {"lease"}
    spent, _ = source.booked("org:org:month")
    source.close(usage("live", nano_usd=2_000_000))  # the same record of PRICED once more
    assert source.booked("org:org:month")[0] == spent
    assert not unsound(source.state) and not unsound(target.state)
    assert not source.state.moved and set(target.state.moved) == {"trued", "there", "lease"}


def test_decisions_after_the_move_are_newer_than_all_before_it() -> None:
    _, _, target = moved()
    version = target.state.decisions["key:key"].version
    assert version == target.state.version
    target.govern(organisation(org=[rule("org", 1_000)], key=[rule("key", 100, "total")]))
    (lifted,) = blocks.due(target.state, target.rules, ["key:key"], NOW)
    assert (lifted.state, lifted.version > version) == ("unblock", True)


def test_both_ledgers_are_sound() -> None:
    _, source, target = moved()
    target.do(Close(usage("expired", nano_usd=1_000_000), None))
    target.do(Close(usage("live", nano_usd=2_000_000), None))
    source.do(PassOn("live", "1", True, Position(log_id="p", seq=99)))
    source.do(HandOver("org", 5))
    target.log.insert(0, EpochBegan(owner_epoch=1, at=NOW))
    for of in (source, target):
        inspection, digest = Inspection(), NO_RECORD
        for seq, event in enumerate(of.log, 1):
            commit = Commit(shard="0", owner_epoch=1, at=NOW, digest=digest, priced=Position(), events=(event,))
            digest = hashlib.sha256(encode(commit)).digest()
            inspection.feed(seq, encode(commit), commit)
        assert {check.name: check.failures for check in inspection.checks() if check.state == "fail"} == {}


HOMES: list[Home] = [(1, "a"), (5, "b"), (8, "a"), (9, "c")]


@pytest.mark.parametrize(
    ("stay", "shard", "expected"),
    [
        (None, "a", Leave(5, "b")),
        (None, "b", Come(5, "a")),
        (None, "c", Come(9, "a")),
        (None, "d", None),
        (Stay(5, "leaving", "b"), "a", Leave(5, "b")),
        (Stay(5, "left", "b"), "a", Come(8, "b")),
        (Stay(5, "coming", "a"), "b", Come(5, "a")),
        (Stay(5, "here", "a"), "b", Leave(8, "a")),
        (Stay(8, "gone", "a"), "b", None),
        (Stay(8, "coming", "b"), "a", Come(8, "b")),
        (Stay(8, "here", "b"), "a", Leave(9, "c")),
        (Stay(9, "gone", "c"), "a", None),
        (Stay(9, "here", "a"), "c", None),
    ],
)
def test_each_move_that_config_tells_of_is_made_in_turn(stay: Stay | None, shard: str, expected: object) -> None:
    assert next_step(HOMES, stay, shard) == expected
