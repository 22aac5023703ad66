"""Claude Code's settings: what is written, and what is left alone."""

import json
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from services.cli.app import program
from services.cli.core import connect
from services.cli.errors import Trouble

WANTED = connect.variables("http://127.0.0.1:8080/anthropic", "vk-1")
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def run(*arguments: str, home: Path) -> tuple[int, str]:
    result = CliRunner().invoke(
        program, ["connect", "--base-url", "http://127.0.0.1:8080/anthropic", "--key", "vk-1", *arguments],
        env={"HOME": str(home)},
    )  # fmt: skip
    return result.exit_code, result.output


@settings(max_examples=50)
@given(st.dictionaries(st.text(), json_values), st.dictionaries(st.text(), st.text()))
def test_merging_keeps_every_other_setting_and_is_idempotent(before: dict[str, object], env: dict[str, str]) -> None:
    before["env"] = env
    merged = connect.merged(before, WANTED)
    assert {name: value for name, value in merged.items() if name != "env"} == {
        name: value for name, value in before.items() if name != "env"
    }
    assert merged["env"] == env | WANTED
    assert connect.merged(merged, WANTED) == merged
    assert connect.parse(connect.dump(merged), "x") == merged


@pytest.mark.parametrize("text", ["{ // mine\n}", "[]", '{"env": []}', "{"])
def test_a_file_that_is_not_understood_is_not_rewritten(text: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_text(text)
    code, output = run("--write", "--settings", str(path), home=tmp_path)
    assert code == 1
    assert output.startswith("Error: ")
    assert "Traceback" not in output
    assert path.read_text() == text


def test_write_makes_a_private_file_with_what_the_client_needs(tmp_path: Path) -> None:
    code, _ = run("--write", home=tmp_path)
    path = tmp_path / ".claude" / "settings.json"
    assert code == 0
    assert json.loads(path.read_text())["env"] == {
        "ANTHROPIC_BASE_URL": "http://127.0.0.1:8080/anthropic",
        "ANTHROPIC_AUTH_TOKEN": "vk-1",
        "CLAUDE_CODE_GATEWAY_HINT_HEADERS": "1",
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": "claude-haiku-5-5",
    }
    assert path.stat().st_mode & 0o777 == 0o600


def test_write_keeps_other_settings_the_mode_the_link_and_a_backup(tmp_path: Path) -> None:
    real, link = tmp_path / "dotfiles.json", tmp_path / "settings.json"
    before = '{"model": "opus", "env": {"FOO": "1", "ANTHROPIC_BASE_URL": "http://old"}}'
    real.write_text(before)
    real.chmod(0o640)
    link.symlink_to(real)
    assert run("--write", "--settings", str(link), home=tmp_path)[0] == 0
    after = json.loads(real.read_text())
    assert link.is_symlink()
    assert after["model"] == "opus"
    assert after["env"] == {"FOO": "1"} | WANTED
    assert real.stat().st_mode & 0o777 == 0o640
    (backup,) = tmp_path.glob("dotfiles.json.*.bak")
    assert backup.read_text() == before


def test_writing_twice_changes_nothing_the_second_time(tmp_path: Path) -> None:
    run("--write", home=tmp_path)
    code, output = run("--write", home=tmp_path)
    assert code == 0
    assert "says so already" in output
    assert not list((tmp_path / ".claude").glob("*.bak"))


def test_what_stands_in_the_way_is_named() -> None:
    found = connect.warnings(
        {
            "apiKeyHelper": "x",
            "env": {"ANTHROPIC_API_KEY": "sk", "CLAUDE_CODE_USE_BEDROCK": "1", "CLAUDE_CODE_USE_VERTEX": "0"},
        }
    )
    assert [line.split(" is set")[0] for line in found] == [
        "env.ANTHROPIC_API_KEY",
        "apiKeyHelper",
        "env.CLAUDE_CODE_USE_BEDROCK",
    ]


def test_shell_lines_survive_the_shell(tmp_path: Path) -> None:
    lines = connect.shell_lines({"A": "it's $HOME"}, "bash")
    assert shlex.split(lines) == ["export", "A=it's $HOME"]
    assert connect.shell_lines({"A": "x"}, "fish") == "set -gx A x;"
    code, output = run("--shell", "bash", "--ci", "--streams-only", "--haiku-model", "", home=tmp_path)
    assert code == 0
    assert "export CLAUDE_CODE_MAX_RETRIES=3" in output
    assert "export CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK=1" in output
    assert "HAIKU" not in output


def test_without_anything_running_it_says_how_to_start(tmp_path: Path) -> None:
    result = CliRunner().invoke(program, ["connect", "--data-dir", str(tmp_path)])
    assert result.exit_code == 1
    assert "start it with `sluicegate up`" in result.output
    with pytest.raises(Trouble):
        connect.parse("nonsense", "x")
