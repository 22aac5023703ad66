"""The Tiltfile, evaluated as Starlark with stand-ins for Tilt's own functions that write down how they were called."""

import functools
import importlib
import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from tests.chart import kubernetes
from tests.chart.render import CHART, Object, helm, key, parsed
from tests.chart.tools import ROOT, TOOLS

VALUES = ROOT / "k8s" / "tilt" / "values.yaml"
LIVE = {"edge", "budget", "pricing", "audit", "analytics", "console", "simulator"}


class Tilt:
    """Tilt's functions, as far as the Tiltfile calls them. Others are errors of Starlark, as misspelt ones would be in Tilt."""

    def __init__(self) -> None:
        self.images: dict[str, dict[str, Any]] = {}
        self.resources: dict[str, dict[str, Any]] = {}
        self.applied: list[Object] = []
        self.contexts: list[str] = []
        self.watched: list[str] = []

    def docker_build(self, name: str, context: str, live_update: list[str] | None = None) -> None:
        self.images[name] = {"context": context, "live_update": [json.loads(step) for step in live_update or ()]}

    def sync(self, here: str, there: str) -> str:
        assert (ROOT / here).exists(), here
        return json.dumps(["sync", here, there])

    def run(self, command: str) -> str:
        return json.dumps(["run", command])

    def fall_back_on(self, paths: list[str]) -> str:
        return json.dumps(["fall_back_on", paths])

    def helm(self, path: str, name: str, namespace: str, values: list[str]) -> str:
        given = [part for file in values for part in ("-f", str(ROOT / file))]
        done = helm("template", name, str(ROOT / path), "--namespace", namespace, "--skip-tests", *given)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def blob(self, text: str) -> str:
        return text

    def decode_yaml_stream(self, text: str) -> list[Object]:
        return parsed(text)

    def encode_yaml_stream(self, found: list[Object]) -> str:
        return yaml.safe_dump_all(found)

    def k8s_yaml(self, text: str) -> None:
        self.applied += parsed(text)

    def k8s_resource(self, workload: str, new_name: str, **told: Any) -> None:
        self.resources[new_name] = {"workload": workload, **told}

    def allow_k8s_contexts(self, names: list[str]) -> None:
        self.contexts += names

    def watch_file(self, path: str) -> None:
        self.watched.append(path)


@functools.cache
def evaluated() -> Tilt:
    if str(TOOLS) not in sys.path:
        sys.path.append(str(TOOLS))
    starlark = importlib.import_module("starlark")
    dialect = (
        starlark.Dialect.standard()
    )  # what Tilt's has beside Bazel's: loops and conditions at the top; no f-strings
    dialect.enable_top_level_stmt = True
    module, tilt = starlark.Module(), Tilt()
    for name in [name for name in vars(Tilt) if not name.startswith("_")]:
        module.add_callable(name, getattr(tilt, name))
    module["TRIGGER_MODE_AUTO"], module["TRIGGER_MODE_MANUAL"] = "auto", "manual"
    known = starlark.Globals.extended_by([starlark.LibraryExtension.StructType])
    starlark.eval(module, starlark.parse("Tiltfile", (ROOT / "Tiltfile").read_text(), dialect), known)
    return tilt


def workloads() -> dict[str, Object]:
    """What the chart runs with Tilt's values, by its part."""
    done = helm("template", "sluicegate", str(CHART), "--namespace", "sluicegate", "--skip-tests", "-f", str(VALUES))
    assert done.returncode == 0, done.stderr
    return {
        each["metadata"]["labels"]["app.kubernetes.io/component"]: each
        for each in parsed(done.stdout)
        if each["kind"] in ("Deployment", "StatefulSet", "Job")
    }


def test_each_part_of_the_chart_is_a_resource_and_nothing_else() -> None:
    found = workloads()
    assert set(found) >= LIVE
    assert {name: told["workload"] for name, told in evaluated().resources.items()} == {
        name: each["metadata"]["name"] for name, each in found.items()
    }
    assert len({key(each) for each in evaluated().applied}) == len(evaluated().applied)


def test_ports_lead_to_ports_of_the_pods_and_no_two_begin_at_one() -> None:
    here: list[str] = []
    for name, each in workloads().items():
        containers = each["spec"]["template"]["spec"]["containers"]
        open_ports = {str(port["containerPort"]) for container in containers for port in container.get("ports", ())}
        forwards = [forward.split(":") for forward in evaluated().resources[name]["port_forwards"]]
        assert {there for _, there in forwards} == open_ports, f"each port of {name} can be reached"
        here += [port for port, _ in forwards]
    assert len(here) == len(set(here))
    assert evaluated().resources["edge"]["port_forwards"][0] == "8080:8080", "where everybody expects it"


def test_dependencies_are_resources_and_lead_in_no_circle() -> None:
    left = {name: set(told["resource_deps"]) for name, told in evaluated().resources.items()}
    while left:
        ready = {name for name, after in left.items() if not after & set(left)}
        assert ready, f"a circle in {left}"
        assert all(after <= set(evaluated().resources) for after in left.values())
        left = {name: after for name, after in left.items() if name not in ready}
    for service in LIVE - {"simulator"}:
        assert "provision" in evaluated().resources[service]["resource_deps"], f"{service} waits for its streams"


def test_each_resource_has_its_place_in_the_list() -> None:
    assert {told["labels"][0] for told in evaluated().resources.values()} == {
        "surroundings",
        "money",
        "record",
        "traffic",
    }


def test_a_saved_file_goes_to_services_alone() -> None:
    tilt = evaluated()
    steps = tilt.images["sluicegate"]["live_update"]
    assert [step[1:] for step in steps if step[0] == "sync"] == [
        ["services", "/live/services"],
        ["shared", "/live/shared"],
    ]
    assert not tilt.images["sluicegate-still"]["live_update"]
    running = {key(each): each for each in tilt.applied}
    for name, each in workloads().items():
        (container,) = running[key(each)]["spec"]["template"]["spec"]["containers"]
        if name in LIVE:
            assert container["image"].startswith("sluicegate:")
            assert {"name": "live", "mountPath": "/live"} in container["volumeMounts"]
            assert evaluated().resources[name]["trigger_mode"] == "auto"
        else:
            assert not container["image"].startswith("sluicegate:"), f"{name} would be disturbed"
            assert evaluated().resources[name]["trigger_mode"] == "manual"


def test_what_tilt_applies_is_what_kubernetes_takes() -> None:
    wrong = [problem for each in evaluated().applied for problem in kubernetes.problems(each, "1.37")]
    assert not wrong, "\n".join(wrong)
    kinds = [each["kind"] for each in evaluated().applied]
    assert {"Namespace", "Secret"} <= set(kinds), "the chart brings neither"


def test_clusters_of_others_are_not_touched() -> None:
    assert evaluated().contexts
    assert not [name for name in evaluated().contexts if "prod" in name or name.startswith(("arn:", "gke_"))]


def test_the_process_begins_anew_with_the_code_of_now_and_stays_the_same_process(tmp_path: Path) -> None:
    """`run("kill -HUP 1")` after a sync, on a Python whose start-up module is the one of the values."""
    (configuration,) = yaml.safe_load(VALUES.read_text())["extraObjects"]
    for name, text in configuration["data"].items():
        (tmp_path / name).write_text(text)
    program = tmp_path / "program.py"
    program.write_text("import asyncio\nprint('before', flush=True)\nasyncio.run(asyncio.sleep(60))\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "program"], cwd=tmp_path, env={"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    with process.stdout as out:
        assert out.readline() == "before\n"
        program.write_text("print('after')\n")
        process.send_signal(signal.SIGHUP)
        assert out.readline() == "after\n"
    assert process.wait(10) == 0


@pytest.mark.parametrize("mistake", ["k8s_resources(workload = 'a')", "docker_build('a')", "print(f'{1}')"])
def test_a_mistake_in_the_tiltfile_is_found(mistake: str) -> None:
    starlark = importlib.import_module("starlark")
    module, tilt = starlark.Module(), SimpleNamespace(docker_build=Tilt().docker_build)
    module.add_callable("docker_build", tilt.docker_build)
    with pytest.raises((starlark.StarlarkError, TypeError)):
        starlark.eval(
            module, starlark.parse("Tiltfile", mistake, starlark.Dialect.standard()), starlark.Globals.standard()
        )
