"""The chart renders with both helms, the same each time, into text that people can read."""

import re
import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml

from tests.chart.render import CHART, HELMS, NAMES, files, helm, key, of_ci, one, parsed, python_tool, text
from tests.fixtures.broker import nats_server

HERE = Path(__file__).parent
CHANGING = re.compile(
    r"\b(lookup|rand\w+|now|ago|date\w*|uuidv4|gen\w*(CA|Cert|Key)\w*|derivePassword|bcrypt|htpasswd)\b"
)


@pytest.mark.parametrize("of", HELMS)
def test_every_values_file_passes_the_strict_linter(of: str) -> None:
    for name in NAMES:
        done = helm("lint", "--strict", str(CHART), "-f", str(CHART / "ci" / f"{name}-values.yaml"), of=of)
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"


def test_the_helms_are_the_two_that_are_promised() -> None:
    assert helm("version", "--short", of="helm3").stdout.startswith("v3.17.")
    assert helm("version", "--short", of="helm4").stdout.startswith("v4.")


@pytest.mark.parametrize("values", NAMES)
@pytest.mark.parametrize("of", HELMS)
def test_the_same_values_render_the_same_text(values: str, of: str) -> None:
    assert text(values, of=of) == text(values, of=of)


@pytest.mark.parametrize("values", NAMES)
def test_both_helms_render_the_same_objects(values: str) -> None:
    first, second = ({key(each): each for each in of_ci(values, of)} for of in HELMS)
    assert first.keys() == second.keys()
    assert first == second


@pytest.mark.parametrize("values", NAMES)
def test_no_two_objects_have_one_name(values: str) -> None:
    keys = [key(each) for each in of_ci(values)]
    assert len(keys) == len(set(keys))
    long = [name for _, name in keys if len(name) > 63]
    assert not long, "names of services and labels end at 63"


def test_no_template_asks_the_cluster_the_clock_or_chance() -> None:
    for path in files(CHART, "templates/**/*.*"):
        for expression in re.findall(r"\{\{(?!/\*|- /\*).*?\}\}", path.read_text(), re.DOTALL):
            assert not CHANGING.search(re.sub(r'"[^"]*"', "", expression)), f"{path.name}: {expression}"


@pytest.mark.parametrize("values", NAMES)
def test_what_is_rendered_is_tidy(values: str, tmp_path: Path) -> None:
    rendered = tmp_path / f"{values}.yaml"
    rendered.write_text(text(values))
    done = python_tool("yamllint", "--strict", "-c", str(HERE / "yamllint-rendered.yaml"), str(rendered))
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_people_write_is_tidy() -> None:
    written = [CHART / "Chart.yaml", CHART / "values.yaml", CHART.parent / "definitions.yaml"]
    written += files(CHART, "ci/*.yaml") + files(CHART, "alerts/*.yaml")
    done = python_tool("yamllint", "--strict", "-c", str(HERE / "yamllint-written.yaml"), *map(str, written))
    assert done.returncode == 0, done.stdout + done.stderr


def test_long_and_telling_release_names_make_valid_names() -> None:
    long = "a-release-name-that-is-as-long-as-helm-lets-it-be-53x"
    assert len(long) == 53
    for name in set(re.findall(r"(?m)^  name: (\S+)", text("trial", name=long))):
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name), name
    assert "name: my-sluicegate-edge" in text("trial", name="my-sluicegate")
    assert "name: blue-sluicegate-edge" in text("trial", name="blue")


def test_a_packaged_chart_renders_the_same_and_leaves_the_test_values_out(tmp_path: Path) -> None:
    done = helm("package", str(CHART), "--destination", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (package,) = tmp_path.glob("*.tgz")
    with tarfile.open(package) as opened:
        names = {name.removeprefix("sluicegate/") for name in opened.getnames()}
    assert {"values.schema.json", "README.md", "files/request.py", "alerts/ledger.yaml"} <= names
    assert not [name for name in names if name.startswith("ci/")]
    values = ("-f", str(CHART / "ci" / "trial-values.yaml"))
    rendered = helm("template", "gate", str(package), "--namespace", "llm", "--kube-version", "1.37", *values)
    assert parsed(rendered.stdout) == list(of_ci("trial"))


def test_the_broker_of_a_trial_takes_its_configuration(tmp_path: Path) -> None:
    config = tmp_path / "nats.conf"
    config.write_text(one(of_ci("trial"), "ConfigMap", "-nats")["data"]["nats.conf"])
    done = subprocess.run(
        [nats_server(), "-t", "-c", str(config)], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, done.stderr
    assert "sync_interval: always" in config.read_text(), "else budget refuses to start"


def test_the_clickhouse_of_a_trial_is_told_where_to_write_and_to_admit_no_stranger() -> None:
    data = one(of_ci("trial"), "ConfigMap", "-clickhouse")["data"]
    config, users = (yaml.safe_load(data[name]) for name in ("config.yaml", "users.yaml"))
    assert all(config[name].startswith("/data/") for name in config if name.endswith("path"))
    assert config["user_directories"]["users_xml"]["path"] == "/etc/clickhouse-trial/users.yaml"
    assert users["users"].keys() == {"default"}
