"""The ledger of every release must replay for ever: recorded logs, each kind of event in them, and what they come to.

`python -m tests.contract.test_ledger_log` records another one, for when there are new kinds of events or fields.
"""

import base64
import hashlib
import json
from pathlib import Path

import msgspec
import pytest

from services.budget.core import blocks, luggage
from services.budget.core.leases import GiveBack, Lend, Lent, Policy
from services.budget.core.moves import Arrive, Depart, HandOver, PassOn
from services.budget.core.state import State
from services.budget.core.step import Expire
from services.budget.stores import NO_RECORD
from services.edge.core.lease import Purse
from shared.contracts.budget import Cut, Extend, LuggagePart, TrueUp, Withdraw
from shared.contracts.config import Grant
from shared.contracts.leases import LeaseAnswered, LeaseAsked
from shared.contracts.ledger import Commit, EpochBegan, LedgerEvent, LimitsApplied
from shared.contracts.message import Decoder, encode
from tests.fixtures.budget import NOW, PRINCIPAL, USD, Desk, ask, organisation, rule, usage

EXAMPLES = Path(__file__).parent / "examples"
LOGS = sorted(EXAMPLES.glob("ledger-log-*.jsonl"))
_commit = Decoder(Commit)


def recorded(log: Path) -> tuple[list[bytes], dict[str, object]]:
    """The records as they were stored, and the summary that was written beside them."""
    head, *lines = log.read_text().splitlines()
    return [base64.b64decode(line) for line in lines], json.loads(head)


def summary(state: State) -> dict[str, object]:
    """What a replay comes to, in plain values."""
    return {
        "counters": {
            f"{budget_id} {period_id}": [
                counter.list_nano_usd,
                counter.cost_nano_usd,
                counter.charge_nano_usd,
                counter.held_nano_usd,
            ]
            for (budget_id, period_id), counter in state.counters.items()
        },
        "holds": {rid: [hold.nano_usd, hold.input_nano_usd, hold.output_tokens] for rid, hold in state.holds.items()},
        "closings": {rid: [closing.kind, closing.n] for rid, closing in state.closings.items()},
        "tombstones": list(state.tombstones),
        "decisions": {scope: [decided.state, decided.version] for scope, decided in state.decisions.items()},
        "marks": len(state.marks),
        "lapsed": state.lapsed,
        "leases": {name: [lease.nano_usd, sorted(lease.told)] for name, lease in state.leases.items()},
        "config_rev": state.config_rev,
        "owner_epoch": state.owner_epoch,
        "priced": [state.priced.log_id, state.priced.seq],
    }


def replayed(records: list[bytes]) -> State:
    state = State()
    for record in records:
        state.fold(_commit.decode(record))
    return state


@pytest.mark.parametrize("log", LOGS, ids=lambda log: log.stem)
def test_a_recorded_ledger_replays_to_what_it_came_to_then(log: Path) -> None:
    records, expected = recorded(log)
    found = summary(replayed(records))
    assert {name: found[name] for name in expected} == expected  # older summaries tell less


def test_every_kind_of_event_is_in_a_recorded_ledger() -> None:
    records = [record for log in LOGS for record in recorded(log)[0]]
    kinds = {type(event) for record in records for event in _commit.decode(record).events}
    assert kinds == set(LedgerEvent.__args__)


@pytest.mark.parametrize("log", LOGS, ids=lambda log: log.stem)
def test_a_recorded_ledger_is_chained(log: Path) -> None:
    digest = NO_RECORD
    for record in recorded(log)[0]:
        assert _commit.decode(record).digest == digest
        digest = hashlib.sha256(record).digest()


def test_a_commit_of_a_later_release_with_more_fields_is_read() -> None:
    record = recorded(LOGS[0])[0][1]
    longer = msgspec.msgpack.encode([*msgspec.msgpack.decode(record), "a field of tomorrow"])
    assert _commit.decode(longer) == _commit.decode(record)


def _play(desk: Desk) -> None:
    """Something of everything."""
    desk.grant(ask("settled"))
    desk.close(usage("settled"))
    desk.grant(ask("expired", text_bytes=10_000))
    desk.do(Expire("expired"))
    desk.close(usage("expired", kind="recovered", nano_usd=7_000_000))
    desk.close(usage("expired", nano_usd=3_000_000))
    for lease in ("returned", "out"):
        _lease(desk, lease)
    desk.do(GiveBack("returned"))
    desk.grant(ask("live", text_bytes=50_000, session="s", agent="a"))
    desk.do(TrueUp(rid="live", input_tokens=9_000, nano_usd=9_000_000))
    desk.do(Extend(rid="live", n=1, output_tokens=100))
    desk.do(Cut(rid="live", budget_id="key:key:month", principal=PRINCIPAL, session="s", agent="a"))
    desk.grant(ask("gone"))
    desk.do(Withdraw(rid="gone", edge="e1", epoch=1))
    desk.close(usage("ungoverned", nano_usd=6 * USD, ungoverned=True))


def _lease(desk: Desk, lease: str) -> None:
    """One attempt is told of before its end, one after it."""
    lent = desk.do(Lend(LeaseAsked(lease=lease, like=ask("like"), attempts=4), Policy(share_percent=30)))
    assert isinstance(lent, Lent)
    assert lent.terms
    purse = Purse()
    purse.answered(
        LeaseAsked(lease=lease, like=ask("like"), attempts=4),
        LeaseAnswered(lease=lease, owner_epoch=1, terms=lent.terms),
        NOW,
    )
    for rid in (f"{lease}-told", f"{lease}-ended"):
        assert purse.draw(ask(rid), NOW)
    drawn = purse.to_tell()
    assert drawn
    desk.do(msgspec.structs.replace(drawn, draws=drawn.draws[:1]))
    charges = lent.terms.charges
    desk.close(usage(f"{lease}-ended", charges=charges, lease=lease, held_nano_usd=drawn.draws[1].nano_usd))
    desk.do(drawn)


def _move_away_and_back(desk: Desk) -> None:
    """To a shard that changes nothing but one attempt that never came here."""
    desk.do(Depart("org", 7, "1", ("org", "cus", "team", "key", "key2", "conf", "prov", "G"), True))
    away = luggage.pieces(desk.state.stays["org"].luggage)
    desk.do(HandOver("org", 7))
    desk.do(PassOn("elsewhere", "1", True, desk.state.priced))
    for after in range(0, len(away), 5):
        data, pieces = luggage.part(away[: after + 5], after, 1_000_000)
        whole = after + pieces == len(away)
        part = LuggagePart(org="org", move=8, after=after, pieces=pieces, data=data, whole=whole)
        desk.do(Arrive("1", part))


def _record() -> None:
    grant = Grant(uid="G", org="org", budget_id="key:key:month", nano_usd=USD, granted_at=NOW - 2, expires_at=NOW - 1)
    desk = Desk([*organisation(team=[rule("team", 50, "day", basis="list")], key=[rule("key", 6)]), grant])
    for event in (EpochBegan(owner_epoch=1, at=NOW), LimitsApplied(config_rev=1, at=NOW)):
        desk.state.apply(event)
        desk.log.append(event)
    _play(desk)
    for lapsed in blocks.lapses(desk.state, desk.rules.catalogue.limits.values(), NOW):
        desk.state.apply(lapsed)
        desk.log.append(lapsed)
    for decided in blocks.due(desk.state, desk.rules, ["team:team", "key:key"], NOW):
        desk.state.apply(decided)
        desk.log.append(decided)
    _move_away_and_back(desk)
    digest, records = NO_RECORD, []
    for start in range(0, len(desk.log), 3):
        commit = Commit(
            shard="0",
            owner_epoch=1,
            at=NOW,
            digest=digest,
            priced=desk.state.priced,
            events=tuple(desk.log[start : start + 3]),
        )
        records.append(encode(commit))
        digest = hashlib.sha256(records[-1]).digest()
    lines = [json.dumps(summary(replayed(records))), *(base64.b64encode(record).decode() for record in records)]
    (EXAMPLES / f"ledger-log-{len(LOGS) + 1}.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    _record()
