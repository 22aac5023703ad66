"""An upgrade changes nothing that Kubernetes refuses to change, and loses nothing by another name.

`golden/VERSION/` holds the values files of each released chart and what they rendered then; `record.py` writes it.
"""

import functools
from pathlib import Path

import pytest
import yaml

from tests.chart.render import CHART, Object, key, parsed
from tests.chart.render import helm as run_helm

GOLDEN = Path(__file__).parent / "golden"
RELEASED = [
    (version.name, values.name.removesuffix("-values.yaml"))
    for version in sorted(GOLDEN.glob("*"))
    for values in sorted(version.glob("*-values.yaml"))
]
MAY_CHANGE = {
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
}
"""Of a StatefulSet's spec; the API server refuses any other change."""


@functools.cache
def before(version: str, values: str) -> dict[tuple[str, str], Object]:
    return {key(each): each for each in parsed((GOLDEN / version / f"{values}.yaml").read_text())}


@functools.cache
def after(version: str, values: str) -> dict[tuple[str, str], Object]:
    """The present chart with the values of then: what an upgrade by `--reuse-values` of one's own file does."""
    arguments = ("template", "gate", str(CHART), "--namespace", "llm", "--kube-version", "1.37")
    done = run_helm(*arguments, "-f", str(GOLDEN / version / f"{values}-values.yaml"))
    assert done.returncode == 0, f"values that {version} took are refused: {done.stderr}"
    return {key(each): each for each in parsed(done.stdout)}


def test_there_is_a_golden_rendering_of_the_first_chart() -> None:
    assert set(RELEASED) >= {("0.1.0", "trial"), ("0.1.0", "production")}


@pytest.mark.parametrize(("version", "values"), RELEASED)
def test_what_cannot_be_changed_is_as_it_was(version: str, values: str) -> None:
    for name, old in before(version, values).items():
        new = after(version, values).get(name)
        if old["kind"] == "StatefulSet":
            assert new, f"{name} is gone, and with it the way to its volumes"
            kept = old["spec"].keys() | new["spec"].keys()
            for field in kept - MAY_CHANGE:
                assert new["spec"].get(field) == old["spec"].get(field), f"{name} {field}"
        elif old["kind"] == "Deployment" and new:
            assert new["spec"]["selector"] == old["spec"]["selector"], name
        elif old["kind"] == "Service" and new:
            assert new["spec"].get("clusterIP") == old["spec"].get("clusterIP"), name
        elif old["kind"] == "Job" and new:
            assert new["spec"]["template"] == old["spec"]["template"], (
                f"{name} has the same name and does something else"
            )


@pytest.mark.parametrize(("version", "values"), RELEASED)
def test_selectors_still_find_the_pods_of_then(version: str, values: str) -> None:
    """During an update old pods serve behind new Services and are counted by new budgets."""
    old_pods = {
        each["metadata"]["name"]: each["spec"]["template"]["metadata"]["labels"]
        for each in before(version, values).values()
        if each["kind"] in ("Deployment", "StatefulSet")
    }
    for each in after(version, values).values():
        if each["kind"] in ("Service", "PodDisruptionBudget", "NetworkPolicy"):
            spec = each["spec"]
            wanted = spec.get("podSelector", spec.get("selector"))
            labels = wanted.get("matchLabels", wanted)
            if labels.get("app.kubernetes.io/component") in {"test", "provision", "organisation"}:
                continue
            assert any(found.items() >= labels.items() for found in old_pods.values()), key(each)


def test_the_chart_is_of_the_release_it_stands_in() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = (CHART.parents[1] / "pyproject.toml").read_text()
    assert f'\nversion = "{chart["appVersion"]}"' in project
