"""Messages as rows, rows as inserts, and where to go on."""

from itertools import pairwise

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from services.analytics.core.directory import Names
from services.analytics.core.inserts import Piece, Resume, cut, month, resume
from services.analytics.core.requests import REQUESTS, RequestRow
from services.analytics.core.tables import Table
from services.analytics.core.usage import USAGE, usage_rows
from services.analytics.handlers.logs import request_pieces
from shared.bus import Stored
from shared.contracts.config import ConfigChanged, Customer, Key, Org, ProviderConfig
from shared.contracts.ledger import Commit
from shared.contracts.message import bundle, encode
from shared.contracts.streams import Position
from tests.fixtures.ledger import START, commit, entry, held, request


def named(table: Table[object], source: object) -> dict[str, object]:
    return dict(zip((column.name for column in table.columns), (v[0] for v in table.pivot([source])), strict=True))


def first(of: Commit) -> dict[str, object]:
    return named(USAGE, next(usage_rows(of, "L", 7)))  # type: ignore[arg-type]  # a table of its own source type


def test_each_entry_of_a_commit_is_one_row_and_other_events_are_none() -> None:
    rows = list(usage_rows(commit(held("A"), entry("A"), held("B"), entry("B")), "L", 7))
    assert [(row.entry.event_id, row.stream_seq, row.entry_index) for row in rows] == [("A:0", 7, 1), ("B:0", 7, 3)]
    assert list(usage_rows(commit(held("A")), "L", 8)) == []


def test_token_columns_are_sums_of_the_lines_and_output_includes_thinking() -> None:
    row = first(commit(entry("A", tokens={"input": 3, "output": 10, "thinking": 4, "cache_read": 9, "tea": 5})))
    assert (row["input_tokens"], row["output_tokens"], row["thinking_tokens"]) == (3, 14, 4)
    assert (row["cache_read_tokens"], row["cache_write_5m_tokens"], row["web_search_requests"]) == (9, 0, 0)


def test_a_correction_keeps_its_sign_and_names_what_it_corrects() -> None:
    row = first(commit(entry("A", n=1, kind="correction", tokens={"output": -10})))
    assert (row["event_id"], row["corrects"], row["kind"]) == ("A:1", "A:0", "correction")
    assert row["output_tokens"] == -10
    assert row["cost_nano_usd"] == -150_000


def test_a_row_stands_at_its_admission_and_in_the_log_at_its_commit() -> None:
    row = first(commit(entry("A", at=START), at=START + 5))
    assert (row["ts"], row["committed_at"], row["log_id"]) == (START, START + 5, "L")


def test_a_refused_request_is_a_row_without_an_admission() -> None:
    row = named(REQUESTS, RequestRow(request("r", verdict="refused"), "L", 3))  # type: ignore[arg-type]  # as above
    assert (row["ts"], row["verdict"], row["admitted_at"], row["attempts"]) == (START, "refused", 0, [])


def test_no_two_columns_of_a_table_share_a_name() -> None:
    for names in ([c.name for c in USAGE.columns], [c.name for c in REQUESTS.columns]):
        assert len(names) == len(set(names))


pieces = st.lists(st.tuples(st.sampled_from(["202611", "202612"]), st.integers(0, 5)), max_size=30).map(
    lambda drawn: [Piece(seq + 1, part, [(seq + 1, i) for i in range(n)]) for seq, (part, n) in enumerate(drawn)]
)


@given(pieces, st.integers(1, 12))
def test_inserts_keep_every_row_in_order_and_divide_no_message(drawn: list[Piece[tuple[int, int]]], most: int) -> None:
    inserts = list(cut(drawn, most))
    assert [row for insert in inserts for row in insert.rows] == [row for piece in drawn for row in piece.rows]
    owners = [{seq for seq, _ in insert.rows} for insert in inserts]
    assert sum(map(len, owners)) == len(set().union(*owners))
    assert all(insert.last_seq < later.first_seq for insert, later in pairwise(inserts))


@given(pieces, st.integers(1, 12))
def test_an_insert_has_one_partition_and_no_more_rows_than_allowed_unless_one_message_has(
    drawn: list[Piece[tuple[int, int]]], most: int
) -> None:
    partitions = {piece.seq: piece.partition for piece in drawn}
    for insert in cut(drawn, most):
        assert len({partitions[seq] for seq, _ in insert.rows}) == 1
        assert len(insert.rows) <= most or insert.first_seq == insert.last_seq


def test_a_bundle_over_the_turn_of_a_month_is_read_again_until_both_its_months_are_in() -> None:
    days = [START, START + 1, START + 40 * 86_400_000_000, START + 2]
    told = [msgspec.structs.replace(request(f"r{n}"), received_at=at) for n, at in enumerate(days)]
    pieces = request_pieces("L")(Stored(7, "request.completed", bundle([encode(each) for each in told])))
    assert [[row.request.request_id for row in piece.rows] for piece in pieces] == [["r0", "r1", "r3"], ["r2"]]
    assert [{row.stream_seq for row in piece.rows} for piece in pieces] == [{6}, {7}]
    assert {piece.seq for piece in pieces} == {7}
    tokens = {insert.token("L") for insert in cut(pieces, 100)}
    alone = request_pieces("L")(Stored(6, "request.completed", encode(told[0])))
    assert len(tokens | {insert.token("L") for insert in cut(alone, 100)}) == 3


def test_months_end_at_midnight_utc() -> None:
    december = 1_796_083_200_000_000  # 2026-12-01T00:00:00Z
    assert (month(december - 1), month(december)) == ("202611", "202612")


def test_reading_goes_on_after_the_highest_row_of_the_same_log() -> None:
    assert resume({}, Position(log_id="A", seq=9)) == Resume(0)
    assert resume({"A": 7, "older": 40}, Position(log_id="A", seq=9)) == Resume(7)


def test_a_log_that_was_replaced_or_lost_its_end_is_read_from_the_beginning_with_an_alarm() -> None:
    assert resume({"A": 7}, Position(log_id="B", seq=9)) == Resume(0, "log_replaced")
    assert resume({"A": 7}, Position(log_id="A", seq=6)) == Resume(0, "log_shortened")


def config(rev: int, *puts: Org | Customer | Key, deletes: tuple[str, ...] = (), more: bool = False) -> ConfigChanged:
    return ConfigChanged(config_rev=rev, at=rev, actor="admin", puts=puts, deletes=deletes, more=more)


def test_a_deleted_entity_keeps_its_last_name() -> None:
    names = Names("L")
    names.fold(config(1, Customer(uid="C", org="O", id="acme")), 1)
    names.fold(config(2, Customer(uid="C", org="O", id="acme-inc")), 2)
    (row,) = names.fold(config(3, deletes=("C",)), 3)
    assert (row.id, row.deleted, row.config_rev) == ("acme-inc", True, 3)


def test_a_change_set_makes_rows_when_it_is_complete_and_never_when_broken_off() -> None:
    names = Names("L")
    assert names.fold(config(1, Org(uid="O", id="lost"), more=True), 1) == []
    assert names.fold(config(2, Org(uid="O", id="default"), more=True), 2) == []
    rows = names.fold(config(2, Customer(uid="C", org="O", id="acme")), 3)
    assert [(row.uid, row.id, row.stream_seq) for row in rows] == [("O", "default", 3), ("C", "acme", 3)]


def test_a_keys_provider_configs_are_named_beside_it() -> None:
    key = Key(
        uid="K",
        org="O",
        customer="C",
        team="T",
        id="dev",
        owner="a@b.c",
        providers=(ProviderConfig(uid="PC", provider="P"),),
    )
    rows = Names("L").fold(config(1, key), 1)
    assert [(row.uid, row.kind, row.key_uid, row.owner) for row in rows] == [
        ("K", "key", "", "a@b.c"),
        ("PC", "provider_config", "K", ""),
    ]
