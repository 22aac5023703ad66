"""Each alert fires for what it is meant for, keeps quiet otherwise, and says what to do."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.observability.files import ALERT_FILES, ROOT, all_alerts
from tests.observability.programs import program

RULES = sorted((Path(__file__).parent / "rules").glob("*.yaml"))
STEMS = [path.stem for path in RULES]


@pytest.mark.parametrize("rules", RULES, ids=STEMS)
def test_each_alert_fires_when_it_should_and_not_otherwise(rules: Path) -> None:
    done = subprocess.run(
        [program("promtool"), "test", "rules", str(rules)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_takes_the_rules_as_they_are() -> None:
    files = [str(path) for path in ALERT_FILES]
    done = subprocess.run(
        [program("promtool"), "check", "rules", "--lint=all", "--lint-fatal", *files],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tried_in_a_case_that_it_is_for_and_in_one_that_it_is_not_for() -> None:
    assert [path.stem for path in ALERT_FILES] == STEMS
    fires, keeps_quiet = set[str](), set[str]()
    for rules in RULES:
        for case in yaml.safe_load(rules.read_text())["tests"]:
            for tried in case["alert_rule_test"]:
                (fires if tried["exp_alerts"] else keeps_quiet).add(tried["alertname"])
    names = {rule["alert"] for rule in all_alerts()}
    assert fires == names
    assert keeps_quiet == names


def test_every_alert_has_a_severity_and_a_section_of_the_runbook_of_its_own() -> None:
    runbook = (ROOT / "docs" / "alerts.md").read_text()
    sections = dict(re.findall(r"(?ms)^### (\w+)\n(.*?)(?=^##|\Z)", runbook))
    assert sorted(sections) == sorted(rule["alert"] for rule in all_alerts())
    for rule in all_alerts():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["runbook_url"] == f"docs/alerts.md#{rule['alert'].lower()}"
        said = sections[rule["alert"]]
        assert said.startswith(f"\n*{rule['labels']['severity']}*"), rule["alert"]
        assert all(f"**{part}**" in said for part in ("Means.", "Harms.", "Do.")), rule["alert"]


def test_what_the_runbook_names_is_there() -> None:
    code = [path.read_text() for folder in ("services", "shared") for path in (ROOT / folder).rglob("*.py")]
    runbook = (ROOT / "docs" / "alerts.md").read_text()
    events = set(re.findall(r"`((?:edge|budget|pricing|audit|analytics|service)\.[a-z_]+)`", runbook))
    assert {event for event in events if not any(f'"{event}"' in text for text in code)} == set()
    telemetry = (ROOT / "shared" / "telemetry.py").read_text()
    metrics = set(re.findall(r"`(sluicegate_\w+)`", runbook))
    assert {name for name in metrics if f'"{name}"' not in telemetry} == set()
