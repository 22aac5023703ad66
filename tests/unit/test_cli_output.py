"""Amounts, tables and JSON on the command line, and the judgement of the doctor."""

import io
import json
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from services.cli.app import COMMANDS, program
from services.cli.commands.get import budgets, kind_named
from services.cli.commands.keys import body_of
from services.cli.commands.simulate import mix_of
from services.cli.core import doctor, in_force
from services.cli.output import Column, dollars, table, words
from services.cli.supervisor.child import pause_before


@given(st.integers(-(10**18), 10**18))
def test_dollars_are_exact(nano_usd: int) -> None:
    text = dollars(nano_usd)
    assert Decimal(text.replace("$", "").replace(",", "")) * 10**9 == nano_usd
    assert len(text.rpartition(".")[2]) >= 2


def test_who_has_a_change_and_who_lags_is_said_in_words() -> None:
    edges = [{"edge": "01A", "config_rev": 5, "lagging": False}, {"edge": "01B", "config_rev": 4, "lagging": True}]
    shards = [{"shard": "0", "config_rev": 5, "lagging": False}, {"shard": "1", "config_rev": 0, "lagging": True}]
    found = {"config_rev": 5, "waited_ms": 2000, "edges": edges, "shards": shards, "lagging": ["01B"]}
    assert list(in_force.words(found)) == [
        "in force on 1 of 2 edges after 2000 ms",
        "edge 01B lags: it is at revision 4 of 5",
        "the owner of shard 1 lags: it does not answer, and nothing passes there on older rules",
    ]
    assert list(in_force.words(None)) == []


def test_dollars_read_well() -> None:
    assert [dollars(n) for n in (0, 1, 1_500_000_000, -20_000_000, 1_234_567_000_000_000, None)] == [
        "$0.00", "$0.000000001", "$1.50", "-$0.02", "$1,234,567.00", "",
    ]  # fmt: skip


def test_a_table_shows_names_as_they_are() -> None:
    out = io.StringIO()
    Console(file=out, width=80).print(
        table([{"a": "[red]x[/red]", "n": 5}], (Column("A", "a"), Column("N", "n", right=True)))
    )
    assert "[red]x[/red]  5" in out.getvalue()


def test_cells_are_words() -> None:
    assert words({"a": True, "b": [1, None]}) == "a=yes, b=1, "
    assert budgets([{"limit_usd": 5, "period": "day"}, {"limit_usd": "0.5", "period": "month", "mode": "soft"}]) == (
        "$5 a day, $0.5 a month (soft)"
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    result = CliRunner().invoke(program, [name, "--help"])
    assert result.exit_code == 0
    assert "Usage: " in result.output


@pytest.mark.parametrize(
    "arguments",
    [["get", "keys"], ["keys", "list"], ["usage"], ["requests"], ["status"], ["simulate"], ["keys", "revoke", "k"]],
)
def test_without_a_console_every_command_is_one_line_that_says_how_to_start(
    arguments: list[str], tmp_path: Path
) -> None:
    result = CliRunner().invoke(program, [*arguments, "--data-dir", str(tmp_path)])
    assert result.exit_code == 1
    assert result.output.startswith("Error: nothing runs on ")
    assert "`sluicegate up`" in result.output


def test_a_console_that_does_not_answer_is_one_line() -> None:
    result = CliRunner().invoke(program, ["get", "keys", "--url", "http://127.0.0.1:9", "--token", "t"])
    assert result.exit_code == 1
    assert result.output.startswith("Error: the console at http://127.0.0.1:9 does not answer")


def test_a_kind_that_does_not_exist_names_those_that_do() -> None:
    assert [kind_named(name) for name in ("key", "keys", "organisation")] == ["keys", "keys", "org"]
    result = CliRunner().invoke(program, ["get", "cheese"])
    assert result.exit_code == 2
    assert "org, customers, teams, keys, providers, prices, budgets" in result.output


def test_a_new_keys_amounts_stay_text() -> None:
    given_ = {
        "team": "a/b",
        "owner": "",
        "day_usd": "0.1",
        "month_usd": None,
        "models": (),
        "tags": ("cost_center=47=11",),
    }
    assert body_of("k", given_) == {
        "id": "k", "team": "a/b", "budgets": [{"limit_usd": "0.1", "period": "day"}], "tags": {"cost_center": "47=11"},
    }  # fmt: skip


def test_a_mix_is_read_as_weights() -> None:
    assert mix_of("stream=3, error=1") == {"stream": 3, "error": 1}
    result = CliRunner().invoke(
        program, ["simulate", "--mix", "strem=3", "--base-url", "http://127.0.0.1:9", "--key", "k"]
    )
    assert result.exit_code == 2
    assert "strem" in result.output


def test_restarts_begin_at_once_and_are_never_more_than_two_seconds_apart() -> None:
    assert [pause_before(deaths) for deaths in (0, 1, 2, 3)] == [0.0, 0.0, 0.1, 0.2]
    assert max(pause_before(deaths) for deaths in range(1_000)) == 2.0


@pytest.mark.parametrize(
    ("finding", "level"),
    [
        (doctor.port("edge", 8080, running=False, free=True, answers=False), "ok"),
        (doctor.port("edge", 8080, running=False, free=False, answers=True), "warn"),
        (doctor.port("edge", 8080, running=True, free=False, answers=False), "fail"),
        (doctor.broker_sync(True), "ok"),
        (doctor.broker_sync(False), "fail"),
        (doctor.broker_sync(None), "fail"),
        (doctor.clock("broker", -20.0), "ok"),
        (doctor.clock("broker", 700.0), "warn"),
        (doctor.clock("broker", -7_000.0), "fail"),
        (doctor.clock("broker", None), "warn"),
        (doctor.credential("anthropic", "env:X", ""), "ok"),
        (doctor.credential("anthropic", "env:X", "not set"), "fail"),
        (doctor.price_book("2026-11-21", 3), "ok"),
        (doctor.price_book("2026-11-21", 60), "warn"),
        (doctor.price_book("2026-11-21", 400), "fail"),
        (doctor.disk(10 * 2**30), "ok"),
        (doctor.disk(2**30), "warn"),
        (doctor.disk(2**20), "fail"),
        (doctor.modes("admin-token", 0o600), "ok"),
        (doctor.modes("admin-token", 0o644), "fail"),
        (doctor.keys(1), "ok"),
        (doctor.keys(0), "warn"),
    ],
)
def test_the_doctor_judges_and_says_what_to_do(finding: doctor.Finding, level: str) -> None:
    assert finding.level == level
    assert bool(finding.todo) == (level != "ok")
    assert doctor.exit_code([finding]) == (level == "fail")


def test_the_doctors_findings_are_json_for_programs(tmp_path: Path) -> None:
    result = CliRunner().invoke(program, ["doctor", "--json", "--data-dir", str(tmp_path / "none")])
    found = json.loads(result.stdout)
    assert {"price book", "disk", "port edge"} <= {finding["check"] for finding in found}
