"""The Dockerfile, read by hadolint and by us."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import yaml

from tests.chart.render import CHART, containers, of_ci, pods
from tests.image.sbom import ROOT, TOOLS

TEXT = (ROOT / "Dockerfile").read_text()
CODE = "".join(line for line in TEXT.splitlines(keepends=True) if not line.startswith("#"))


def hadolint() -> str:
    """The program; a missing one fails the run."""
    found = os.environ.get("HADOLINT") or str(TOOLS / "bin" / "hadolint")
    assert Path(found).exists(), "hadolint is missing: make .cache/image-tools/.installed, or set HADOLINT"
    return found


def checked(path: str, given: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [hadolint(), "--no-color", path], input=given, capture_output=True, text=True, check=False, timeout=60
    )


def test_hadolint_finds_nothing_and_nothing_is_hidden_from_it() -> None:
    done = checked(str(ROOT / "Dockerfile"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "hadolint ignore" not in TEXT
    assert "DL3007" in checked("-", CODE.replace("FROM ${BASE} AS", "FROM python:latest AS")).stdout, "it does look"


def test_the_image_says_the_product_s_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert re.findall(r"ARG VERSION=(\S+)", TEXT) == [version]
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == version
    assert f"sluicegate:{version} ." in TEXT


def test_the_user_is_a_number_and_the_one_of_the_chart() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert f"USER {values['runAs']['user']}:{values['runAs']['group']}\n" in CODE


def test_what_the_chart_starts_is_started_by_the_image_s_first_process() -> None:
    """A command of the chart's would replace the image's own, and with it who passes signals on and buries the dead."""
    ours = [
        (where, each)
        for name in ("trial", "production")
        for where, pod in pods(of_ci(name))
        for each in containers(pod)
        if "clickhouse" not in each["image"]
    ]
    assert {each["args"][0] for _, each in ours} == {"python", "sluicegate", "nats-server"}
    assert not [where for where, each in ours if "command" in each]
    assert re.findall(r"ENTRYPOINT (.*)", CODE) == ['["dumb-init", "--single-child", "--"]']


def test_only_what_the_image_takes_reaches_its_builder() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    let = {line[1:] for line in lines if line.startswith("!")}
    copied = {name for line in re.findall(r"(?m)^COPY (?!--from)(.*) \S+$", CODE) for name in line.split()}
    assert "*" in lines
    assert {name.rstrip("*") for name in copied} == let


def test_any_builder_will_do() -> None:
    """Nothing that only BuildKit has, and no frontend that is to be fetched."""
    assert "# syntax" not in TEXT
    assert not re.search(r"RUN --|COPY --(?!from=)|<<", CODE)
