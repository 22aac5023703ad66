"""An inspection of the ledger finds what must never be in one."""

import hashlib
from collections.abc import Sequence

import msgspec
import pytest

from services.budget.core.inspection import NO_RECORD, Check, Inspection
from services.budget.core.step import Expire
from services.budget.explain import Step, told
from services.budget.verify import compare
from shared.contracts.budget import Cut, Extend, TrueUp, Withdraw
from shared.contracts.ledger import Commit, Entry, EpochBegan, Held, LedgerEvent
from shared.contracts.message import encode
from shared.contracts.streams import Position
from tests.fixtures.budget import NOW, PRINCIPAL, Desk, ask, organisation, rule, usage


def ledger() -> list[LedgerEvent]:
    """Every kind of attempt: settled, void, expired and corrected, withdrawn, still live."""
    desk = Desk(organisation(key=[rule("key", 5, "total")]))
    desk.log.append(EpochBegan(owner_epoch=1, at=NOW))
    for rid in ("settled", "void", "corrected", "withdrawn", "live"):
        desk.grant(ask(rid, max_tokens=5_000))
    desk.do(TrueUp(rid="settled", input_tokens=500, nano_usd=400_000))
    desk.do(Extend(rid="settled", n=1, output_tokens=100))
    desk.do(Cut(rid="settled", budget_id="key:key:total", principal=PRINCIPAL, session="s"))
    desk.close(usage("settled"))
    desk.close(usage("void", "void", 0))
    desk.do(Expire("corrected"))
    desk.close(usage("corrected", nano_usd=7_000_000))
    desk.do(Withdraw(rid="withdrawn", edge="e1", epoch=1))
    desk.close(usage("ungoverned"))
    return desk.log


def commits(events: Sequence[LedgerEvent]) -> list[Commit]:
    digest, made = NO_RECORD, list[Commit]()
    for event in events:
        commit = Commit(shard="0", owner_epoch=1, at=NOW, digest=digest, priced=Position(log_id="p"), events=(event,))
        digest = hashlib.sha256(encode(commit)).digest()
        made.append(commit)
    return made


def failing(records: Sequence[Commit]) -> set[str]:
    inspection = Inspection()
    for seq, commit in enumerate(records, 1):
        inspection.feed(seq, encode(commit), commit)
    return {check.name for check in inspection.checks() if check.state == "fail"}


def entry(events: Sequence[LedgerEvent], event_id: str) -> Entry:
    return next(event for event in events if isinstance(event, Entry) and event.event_id == event_id)


def test_a_ledger_with_every_kind_of_attempt_is_sound() -> None:
    assert not failing(commits(ledger()))


def test_a_changed_record_breaks_the_chain() -> None:
    records = commits(ledger())
    records[3] = msgspec.structs.replace(records[3], at=NOW + 1)
    assert failing(records) == {"each record carries the digest of the one before"}


def test_a_record_that_is_none_is_told_and_the_rest_is_read() -> None:
    inspection, data = Inspection(), b"no record"
    inspection.unreadable(1, data, "garbage")
    began = EpochBegan(owner_epoch=1, at=NOW)
    follows = msgspec.structs.replace(commits([began])[0], digest=hashlib.sha256(data).digest())
    inspection.feed(2, encode(follows), follows)
    assert inspection.checks()[0].failures == ["record 1 cannot be read: garbage"]


def test_two_owners_at_once_are_seen() -> None:
    events = [*ledger(), EpochBegan(owner_epoch=3, at=NOW)]
    assert "owner epochs rise by one, each record is its owner's" in failing(commits(events))


def test_a_position_that_goes_back_is_seen() -> None:
    records = [
        Commit(shard="0", owner_epoch=0, at=NOW, digest=NO_RECORD, priced=Position(log_id="p", seq=seq), events=())
        for seq in (5, 4)
    ]
    assert "the position in PRICED never goes back" in failing(records)


@pytest.mark.parametrize("event_id", ["settled:0", "corrected:1"])
def test_an_entry_booked_twice_is_seen(event_id: str) -> None:
    events = ledger()
    events.append(entry(events, event_id))
    assert "each attempt has one closing entry, corrections follow it in order" in failing(commits(events))


def test_a_correction_of_nothing_is_seen() -> None:
    events = ledger()
    events.remove(entry(events, "corrected:0"))
    assert "each attempt has one closing entry, corrections follow it in order" in failing(commits(events))


def test_an_amount_that_its_lines_do_not_give_is_seen() -> None:
    events = ledger()
    at = events.index(wrong := entry(events, "settled:0"))
    dearer = msgspec.structs.replace(wrong.usage, cost_nano_usd=wrong.usage.cost_nano_usd + 1)
    events[at] = msgspec.structs.replace(wrong, usage=dearer)
    assert failing(commits(events)) == {"each attempt's entries sum to its lines, rounded up once"}


def test_a_hold_of_a_closed_attempt_is_seen() -> None:
    events = ledger()
    events.append(next(event for event in events if isinstance(event, Held) and event.rid == "settled"))
    assert "each hold is live, closed or withdrawn" in failing(commits(events))


def test_rows_are_compared_by_id_and_amount() -> None:
    page = {"a:0": (1, 2, 3), "b:0": (4, 5, 6), "c:0": (7, 8, 9)}
    check = Check(name="rows")
    compare(page, [("a:0", 1, 2, 3), ("b:0", 4, 5, 6), ("c:0", 7, 8, 9)], check)
    assert check.state == "ok"
    compare(page, [("a:0", 1, 2, 3), ("a:0", 1, 2, 3), ("b:0", 4, 5, 7), ("d:0", 0, 0, 0)], check)
    assert check.failed == 4
    assert [why.split(" ", 1)[0] for why in check.failures] == ["a:0", "b:0", "d:0", "c:0"]


def story(rid: str) -> list[Step]:
    return [step for seq, commit in enumerate(commits(ledger()), 1) for step in told(seq, commit, rid)]


def test_the_story_of_an_attempt_is_told_in_order() -> None:
    steps = story("settled")
    assert [step.kind for step in steps] == ["held", "trued_up", "extended", "spent", "entry"]
    assert "$0.051 held for claude-round" in steps[0].words
    assert "key:key:total in total" in steps[0].words
    assert "100 more tokens of output for $0.001" in steps[2].words
    assert "settled:0, settled (ok): cost $0.005" in steps[4].words
    assert "500 output of claude-round at round = $0.005" in steps[4].words
    assert steps[4].event["usage"]["usage"]["rid"] == "settled"


def test_a_correction_says_what_it_corrects() -> None:
    first, last = story("corrected")[1:]
    assert "expired (edge_died)" in first.words
    assert "estimated from what was seen passing" in first.words
    assert "a correction of corrected:0" in last.words
    assert "cost -$0.044" in last.words
    assert story("nobody") == []
