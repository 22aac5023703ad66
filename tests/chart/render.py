"""Runs helm on the chart, and finds things in what it renders."""

import functools
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.chart.tools import ROOT, program

CHART = ROOT / "helm" / "sluicegate"
CI = sorted(CHART.glob("ci/*-values.yaml"))
NAMES = tuple(path.name.removesuffix("-values.yaml") for path in CI)
HELMS = ("helm3", "helm4")
NEWEST = "1.37"
RELEASE = "gate"

Object = dict[str, Any]

_Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def helm(*arguments: str, of: str = "helm4", given: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [program(of), *arguments], input=given, capture_output=True, text=True, check=False, timeout=60
    )


def text(
    values: str = "",
    more: Mapping[str, Any] | None = None,
    *,
    of: str = "helm4",
    kube: str = NEWEST,
    name: str = RELEASE,
) -> str:
    """What `helm template` prints. values: name of a file in ci/. more: values over it."""
    done = attempt(values, more, of=of, kube=kube, name=name)
    assert done.returncode == 0, done.stderr
    return done.stdout


def attempt(
    values: str,
    more: Mapping[str, Any] | None = None,
    *,
    of: str = "helm4",
    kube: str = NEWEST,
    name: str = RELEASE,
    arguments: tuple[str, ...] = (),
) -> "subprocess.CompletedProcess[str]":
    files = ("-f", str(CHART / "ci" / f"{values}-values.yaml")) if values else ()
    over = ("-f", "-") if more is not None else ()
    chart = ("template", name, str(CHART), "--namespace", "llm", "--kube-version", kube)
    return helm(*chart, *files, *over, *arguments, of=of, given=json.dumps(more))


def objects(
    values: str = "", more: Mapping[str, Any] | None = None, *, of: str = "helm4", kube: str = NEWEST
) -> list[Object]:
    return parsed(text(values, more, of=of, kube=kube))


def parsed(rendered: str) -> list[Object]:
    return [found for found in yaml.load_all(rendered, Loader=_Loader) if found]


@functools.cache
def of_ci(values: str, helm_name: str = "helm4", kube: str = NEWEST) -> tuple[Object, ...]:
    """The objects of one file in ci/, rendered once for all tests; they must not change them."""
    return tuple(objects(values, of=helm_name, kube=kube))


def key(found: Object) -> tuple[str, str]:
    return str(found["kind"]), str(found["metadata"]["name"])


def one(found: "list[Object] | tuple[Object, ...]", kind: str, name: str) -> Object:
    """By kind and the end of its name."""
    (hit,) = [each for each in found if each["kind"] == kind and each["metadata"]["name"].endswith(name)]
    return hit


def pods(found: "list[Object] | tuple[Object, ...]") -> Iterator[tuple[str, Object]]:
    """(kind/name of its owner, pod template) of all that runs."""
    for each in found:
        name = "/".join(key(each))
        if each["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield name, each["spec"]["template"]
        elif each["kind"] == "CronJob":
            yield name, each["spec"]["jobTemplate"]["spec"]["template"]
        elif each["kind"] == "Pod":
            yield name, each


def containers(pod: Object) -> list[Object]:
    return [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]


def workload(values: str, service: str, more: Mapping[str, Any] | None = None) -> Object:
    found = objects(values, more) if more else list(of_ci(values))
    return one(found, "StatefulSet" if service == "edge" else "Deployment", f"-{service}")


def python_tool(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """A module of `.cache/chart-tools`."""
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        env={"PYTHONPATH": str(ROOT / ".cache" / "chart-tools"), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def files(folder: Path, pattern: str) -> list[Path]:
    found = sorted(folder.glob(pattern))
    assert found, f"no {pattern} in {folder}"
    return found
