"""The audit chain: what follows what, and what a check finds."""

import hashlib

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from services.audit.core.chain import PAGE_BYTES, Broken, Read, Tail, Verified, pages, tail_of, unfinished, verify
from services.audit.core.entries import ConfigChanges, of_commit, of_request
from shared.contracts.attribution import Charge, Principal
from shared.contracts.audit import AuditEntry, AuditPage
from shared.contracts.config import BudgetRule, ConfigChanged, Grant, Key, Secret
from shared.contracts.edge import RequestCompleted
from shared.contracts.ledger import Commit, Decided, EpochBegan, Held, Lapsed
from shared.contracts.message import Decoder
from shared.contracts.streams import CONFIG, LEDGER, Position


def entry(seq: int, number: int = 0, text: str = "") -> AuditEntry:
    return AuditEntry(
        at=1,
        action="admitted",
        subject="key:k",
        actor="key:k",
        source=LEDGER,
        source_seq=seq,
        details={"n": number, "text": text},
    )


def read(seq: int, count: int = 1, text: str = "") -> Read:
    entries = tuple(entry(seq, number, text) for number in range(count))
    return Read(source=LEDGER, position=Position(log_id="L", seq=seq), entries=entries)


def chain(count: int) -> list[bytes]:
    """A chain of that many pages, one entry each."""
    tail, made = Tail(), list[bytes]()
    for seq in range(1, count + 1):
        ((data, tail),) = pages(tail, "0", [read(seq)], at=seq)
        made.append(data)
    return made


def test_a_whole_chain_is_verified_and_its_head_is_the_hash_of_the_last_page() -> None:
    made = chain(5)
    assert verify(made) == Verified(pages=5, entries=5, head=hashlib.sha256(made[-1]).digest())
    assert isinstance(verify([]), Verified)


def test_any_byte_changed_in_any_page_is_found() -> None:
    made = chain(4)
    for index, data in enumerate(made):
        for place in range(len(data)):
            changed = data[:place] + bytes([data[place] ^ 0x01]) + data[place + 1 :]
            found = verify([*made[:index], changed, *made[index + 1 :]])
            assert isinstance(found, Broken), (index, place)
            assert found.at == index + 1


@given(st.integers(0, 5), st.integers(0, 5))
def test_pages_that_are_missing_doubled_or_swapped_are_found(first: int, second: int) -> None:
    made = chain(6)
    missing = made[:first] + made[first + 1 :]
    # an end that was cut off is a shorter chain: only its head, kept elsewhere, tells
    if first < 5:
        assert isinstance(verify(missing), Broken)
    assert isinstance(verify(made[: first + 1] + made[first:]), Broken)
    if first != second:
        swapped = list(made)
        swapped[first], swapped[second] = swapped[second], swapped[first]
        assert isinstance(verify(swapped), Broken)


def test_a_cut_off_end_is_found_by_the_head_of_an_earlier_check() -> None:
    made = chain(3)
    whole = verify(made)
    assert isinstance(whole, Verified)
    assert isinstance(verify(made, head=whole.head), Verified)
    assert isinstance(verify(made[:2], head=whole.head), Broken)


def test_a_page_of_another_chain_does_not_fit() -> None:
    ((data, _),) = pages(Tail(), "1", [read(1)], at=1)
    found = verify([data], chain_id="0")
    assert isinstance(found, Broken)
    assert "chain 1" in found.why


def test_a_forger_who_writes_the_last_page_anew_is_found_by_the_next() -> None:
    made = chain(3)
    ((forged, _),) = pages(tail_of(made[0]), "0", [read(2, text="forged")], at=2)
    assert isinstance(verify([made[0], forged]), Verified)
    found = verify([made[0], forged, made[2]])
    assert isinstance(found, Broken)
    assert found.at == 3


@given(st.lists(st.integers(0, 4), max_size=12), st.integers(1, 5))
def test_every_entry_is_in_the_chain_once_and_in_order_however_it_is_batched(counts: list[int], size: int) -> None:
    batch = [read(seq, count) for seq, count in enumerate(counts, 1)]
    tail, made = Tail(), list[bytes]()
    for start in range(0, len(batch), size):
        for data, after in pages(tail, "0", batch[start : start + size], at=1):
            made.append(data)
            tail = after
    told = [e for data in made for e in Decoder(AuditPage).decode(data).entries]
    assert told == [e for one in batch for e in one.entries]
    assert isinstance(verify(made), Verified)


def test_a_message_larger_than_a_page_is_continued_where_a_crash_left_it() -> None:
    whole = read(7, 3_000, text="x" * 500)
    made = [data for data, _ in pages(Tail(), "0", [read(6), whole], at=1)]
    assert len(made) > 1
    assert all(len(data) < PAGE_BYTES + 20_000 for data in made)
    kept = made[:1]  # killed after the first page
    assert Decoder(AuditPage).decode(kept[0]).read[LEDGER].seq == 6
    written = unfinished(kept)[LEDGER, 7]
    rest = msgspec.structs.replace(whole, entries=whole.entries[written:])
    continued = kept + [data for data, _ in pages(tail_of(kept[-1]), "0", [rest], at=1)]
    numbers = [e.details["n"] for data in continued for e in Decoder(AuditPage).decode(data).entries]
    assert numbers == [0, *range(3_000)]
    assert unfinished(continued) == {}
    assert isinstance(verify(continued), Verified)


def test_admissions_blocks_and_epochs_of_the_ledger_are_told_with_uids() -> None:
    held = Held(
        rid="r1",
        request_id="q1",
        attempt=0,
        edge="e",
        epoch=1,
        config_rev=3,
        principal=Principal(org="O", key="K"),
        charges=(Charge(budget_id="key:K:day", period_id="p"),),
        provider="P",
        model="m" * 900,
        nano_usd=5,
        input_nano_usd=1,
        input_tokens=1,
        output_tokens=1,
        stream=True,
        at_cap="cut",
        admitted_at=9,
    )
    events = (
        EpochBegan(owner_epoch=2, at=1),
        held,
        Decided(scope="key:K", state="block", version=4, budget_id="key:K:day", at=10),
    )
    commit = Commit(shard="0", owner_epoch=2, at=10, digest=b"", priced=Position(), events=events)
    told = of_commit(commit, 12)
    assert [(e.action, e.subject) for e in told] == [
        ("epoch_began", "shard:0"),
        ("admitted", "key:K"),
        ("block", "budget:key:K:day"),
    ]
    assert all((e.source, e.source_seq) == (LEDGER, 12) for e in told)
    assert told[1].details["rid"] == "r1"
    assert len(str(told[1].details["model"])) == 200


def test_requests_that_were_let_in_are_not_told_twice_and_refusals_are() -> None:
    def done(verdict: str) -> RequestCompleted:
        return RequestCompleted(
            request_id="q", edge="e", epoch=1, spool_seq=1, principal=Principal(), verdict=verdict, closed_at=4
        )

    assert of_request(done("admitted"), 1) == of_request(done("free"), 1) == ()
    ((refused,), (rejected,)) = (of_request(done(verdict), 1) for verdict in ("refused", "rejected"))
    assert (refused.action, rejected.action, rejected.subject) == ("refused", "rejected", "door")


def test_a_change_set_is_told_when_it_is_whole_with_fields_and_limits_but_no_secret() -> None:
    def key(limit: int, revision: int) -> Key:
        return Key(
            uid="K",
            org="O",
            customer="C",
            team="T",
            id="dev-asha",
            owner="asha@acme.example",
            secrets=(Secret(id="s", hash=b"secret-hash" * revision, hint="vk-abcd…"),),
            budgets=(BudgetRule(id="key:K:day", limit_nano_usd=limit, period="day"),),
            revision=revision,
        )

    def change(rev: int, *puts: Key, more: bool = False, deletes: tuple[str, ...] = ()) -> ConfigChanged:
        return ConfigChanged(config_rev=rev, at=rev, actor="admin", puts=puts, more=more, deletes=deletes)

    changes = ConfigChanges()
    assert changes.fold(change(1, key(1, 1), more=True), 1) is None
    assert changes.fold(change(2, key(5, 1), more=True), 2) is None  # the first set was broken off
    created = changes.fold(change(2), 3)
    changed = changes.fold(change(3, key(7, 2)), 4)
    deleted = changes.fold(change(4, deletes=("K", "unknown")), 5)
    assert created is not None
    assert changed is not None
    assert deleted is not None
    assert [(e.action, e.subject, e.source_seq) for e in created + changed + deleted] == [
        ("created", "key:K", 3),
        ("changed", "key:K", 4),
        ("deleted", "key:K", 5),
    ]
    assert changed[0].details["fields"] == "secrets,budgets"
    assert changed[0].details["limit key:K:day"] == "5 -> 7"
    assert created[0].source == CONFIG
    told = repr(created + changed + deleted)
    assert not any(word in told for word in ("asha", "secret-hash", "vk-abcd"))


def test_who_granted_how_much_is_told_and_what_was_used_when_it_ended_but_no_note() -> None:
    grant = Grant(uid="G", org="O", budget_id="key:K:day", nano_usd=7, granted_at=1, actor="admin", note="for asha")
    made = ConfigChanges().fold(ConfigChanged(config_rev=1, at=1, actor="admin", puts=(grant,), reason="grant"), 1)
    assert made is not None
    (told,) = made
    assert (told.action, told.subject, told.actor, told.org) == ("created", "grant:G", "admin", "O")
    assert (told.details["budget_id"], told.details["nano_usd"], told.details["expires_at"]) == ("key:K:day", 7, 0)
    assert "asha" not in repr(told)
    ended = Lapsed(grant="G", budget_id="key:K:day", period_id="total", used_nano_usd=3, at=2)
    record = Commit(shard="0", owner_epoch=1, at=2, digest=b"", priced=Position(), events=(ended,))
    (told,) = of_commit(record, 9)
    assert (told.action, told.subject, told.details) == (
        "lapsed",
        "grant:G",
        {"budget_id": "key:K:day", "used_nano_usd": 3},
    )
