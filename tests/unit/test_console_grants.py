"""Grants as the console writes them, and what applying a file warns of."""

import msgspec
import pytest

from services.cli.commands.apply import warnings
from services.cli.commands.budgets import told
from services.console import api
from services.console.core import describe, edit, grants
from services.console.core.changes import ChangeSet
from services.console.core.organisation import diff, parse_organisation
from services.console.core.paths import find
from services.console.core.problem import Invalid
from shared.contracts.config import Grant, Key, Org, Team
from tests.unit.test_organisation_edit import DOCUMENT, NOW, Bench

USD = 1_000_000_000
MEMBERS = DOCUMENT.replace(b"name: all}", b"name: all}, {limit_usd: 1, period: day, per: member}")


@pytest.fixture
def bench() -> Bench:
    return Bench()


def apply(bench: Bench, document: bytes, prune: bool = False) -> ChangeSet:
    parsed = parse_organisation(document, is_json=False)
    return bench.commit(diff(bench.directory, parsed, new_uid=bench.uid, new_secret=bench.secret, now=NOW, prune=prune))


def give(bench: Bench, budget: str = "key:dev:day", amount: float | str = 2, **more: str) -> Grant:
    body = api.GrantBody(amount_usd=amount, **more)
    (made,) = bench.commit(grants.give(bench.directory, budget, body, "admin", bench.made)).puts
    assert isinstance(made, Grant)
    return made


def test_a_grant_names_its_budget_by_uid_and_its_end_by_instant(bench: Bench) -> None:
    made = give(bench, amount="2.000000001", expires_at="2026-12-01", note="for the launch")
    assert (made.budget_id, made.nano_usd, made.note) == (f"key:{bench.key.uid}:day", 2 * USD + 1, "for the launch")
    assert (made.granted_at, made.expires_at) == (NOW, 1_796_083_200_000_000)
    assert (made.org, made.actor, made.revision) == (bench.key.org, "admin", 1)


@pytest.mark.parametrize(
    ("budget", "body", "code"),
    [
        ("key:dev:day", {"amount_usd": -1}, "invalid_request"),
        ("key:dev:day", {"amount_usd": 0}, "invalid_request"),
        ("key:dev:day", {"amount_usd": "0.0000000001"}, "invalid_request"),
        ("key:dev:day", {"amount_usd": "nan"}, "invalid_request"),
        ("key:dev:day", {"amount_usd": 10**10}, "invalid_request"),
        ("key:dev:day", {"amount_usd": 1, "expires_at": "1970-01-01T00:00:01Z"}, "invalid_request"),
        ("key:dev:day", {"amount_usd": 1, "expires_at": "tomorrow"}, "invalid_request"),
        ("key:dev:day", {"amount_usd": 1, "note": "x" * 501}, "invalid_request"),
        ("key:dev:month", {"amount_usd": 1}, "not_found"),
        ("key:nobody:day", {"amount_usd": 1}, "not_found"),
        ("session:dev:total:s", {"amount_usd": 1}, "not_grantable"),
        ("team:platform:day", {"amount_usd": 1}, "invalid_request"),  # per member: name one
        ("team:platform:day:member:nobody", {"amount_usd": 1}, "not_found"),
        ("key:dev:day:member:dev", {"amount_usd": 1}, "not_found"),
        ("", {"amount_usd": 1}, "not_found"),
    ],
)
def test_what_cannot_be_granted_is_refused(bench: Bench, budget: str, body: dict[str, object], code: str) -> None:
    apply(bench, MEMBERS)
    with pytest.raises(Invalid) as refused:
        grants.give(bench.directory, budget, msgspec.convert(body, api.GrantBody), "admin", bench.made)
    assert refused.value.code == code


def test_one_member_is_granted_by_its_key(bench: Bench) -> None:
    apply(bench, MEMBERS)
    made = give(bench, "team:platform:day:member:acme/platform/dev")
    assert made.budget_id == f"team:{bench.team.uid}:day:member:{bench.key.uid}"


def test_a_key_of_another_team_has_no_share(bench: Bench) -> None:
    other = b"      - {id: other, keys: [{id: far}]}\n"
    apply(bench, MEMBERS + other)
    with pytest.raises(Invalid):
        give(bench, "team:platform:day:member:far")


def test_taking_back_ends_it_now_and_doing_so_again_changes_nothing(bench: Bench) -> None:
    made = give(bench)
    (ended,) = bench.commit(grants.take_back(bench.directory, made.budget_id, made.uid, NOW + 5)).puts
    assert ended == msgspec.structs.replace(made, expires_at=NOW + 5, revision=2)
    assert grants.take_back(bench.directory, made.budget_id, made.uid, NOW + 9).empty
    (view,) = grants.listed(bench.directory, "key:dev:day", NOW + 9)
    assert (view.uid, view.amount_nano_usd, view.ended) == (made.uid, 2 * USD, True)


def test_a_grant_of_one_budget_is_not_taken_back_through_another(bench: Bench) -> None:
    made = give(bench)
    with pytest.raises(Invalid) as refused:
        grants.take_back(bench.directory, "team:platform:month:all", made.uid, NOW)
    assert refused.value.status == 404


@pytest.mark.parametrize("prune", [False, True])
def test_files_never_touch_a_grant(bench: Bench, prune: bool) -> None:
    made = give(bench)
    assert apply(bench, DOCUMENT, prune).empty
    apply(bench, DOCUMENT.replace(b"limit_usd: 5", b"limit_usd: 6"), prune)
    apply(bench, b"{}", prune)
    assert bench.directory.entities[made.uid] == made


def test_a_document_that_was_read_back_holds_no_grant_and_changes_nothing(bench: Bench) -> None:
    give(bench)
    org = find(bench.directory, Org, "default")
    written = msgspec.json.encode(describe.document(bench.directory, org))
    assert diff(
        bench.directory,
        parse_organisation(written, is_json=True),
        new_uid=bench.uid,
        new_secret=bench.secret,
        now=NOW,
    ).empty


def test_keys_and_teams_with_grants_can_be_changed_and_deleted(bench: Bench) -> None:
    give(bench)
    bench.change(bench.key, owner="x")
    bench.commit(edit.remove(bench.directory, find(bench.directory, Team, "platform"), cascade=True))
    assert not [entity for entity in bench.directory.entities.values() if isinstance(entity, Key)]


# What applying warns of


@pytest.mark.parametrize(
    ("before", "after", "warned"),
    [
        (b"timezone: Europe/Berlin", b"timezone: Asia/Tokyo", ["another timezone"]),
        (b"timezone: Europe/Berlin", b"anchor: 2026-01-15", ["another timezone and anchor"]),
        (b"period: month,", b"period: week,", ["the budget of a month `all` ends"]),
        (b"name: all", b"name: whole", ["the budget of a month `all` ends"]),
        (b"limit_usd: 50", b"limit_usd: 60", []),
        (b"limit_usd: 50", b"mode: soft, limit_usd: 50", []),
        (b"name: all}", b"name: all}, {limit_usd: 9, period: year}", []),
        (b"{limit_usd: 2, period: day}", b"{limit_usd: 2, period: week}", ["the budget of a day ends"]),
    ],
)
def test_a_dry_run_warns_of_a_count_that_begins_anew(
    bench: Bench, before: bytes, after: bytes, warned: list[str]
) -> None:
    assert before in DOCUMENT
    document = parse_organisation(DOCUMENT.replace(before, after), is_json=False)
    changes = diff(bench.directory, document, new_uid=bench.uid, new_secret=bench.secret, now=NOW)
    found = [each for row in changes.changes for each in row.warnings]
    assert len(found) == len(warned)
    for said, part in zip(found, warned, strict=True):
        assert "counts anew from nothing" in said
        assert part in said


def test_the_command_line_says_so_after_the_table() -> None:
    rows = [{"path": "acme", "warnings": ()}, {"path": "acme/platform", "warnings": ("it counts anew",)}]
    assert warnings(rows) == ["", "! acme/platform: it counts anew"]
    assert warnings(rows[:1]) == []


def test_a_total_cannot_roll_over(bench: Bench) -> None:
    with pytest.raises(Invalid) as refused:
        apply(bench, b"org: {budgets: [{limit_usd: 1, period: total, rollover_cap_usd: 1}]}")
    assert refused.value.field == "org.budgets[0].rollover_cap_usd"


def test_a_balance_is_told_with_what_came_on_top() -> None:
    balance = {"spent_nano_usd": USD, "limit_nano_usd": 81 * USD // 10}
    on_top = {"granted_nano_usd": 2 * USD, "rolled_over_nano_usd": 11 * USD // 10}
    assert told(balance | on_top) == "$1.00 spent of $5.00 + $2.00 granted + $1.10 rolled over"
    assert told(balance | dict.fromkeys(on_top, 0)) == "$1.00 spent of $8.10"
