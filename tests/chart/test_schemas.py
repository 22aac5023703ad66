"""The API server of every version we promise takes what is rendered."""

import copy

import pytest

from tests.chart import kubernetes
from tests.chart.render import NAMES, key, of_ci, one


@pytest.mark.parametrize("version", kubernetes.VERSIONS)
def test_every_object_is_one_that_this_kubernetes_knows(version: str) -> None:
    found = {str(each): each for values in NAMES for each in of_ci(values, kube=version)}
    wrong = [problem for each in found.values() for problem in kubernetes.problems(each, version)]
    assert not wrong, "\n".join(sorted(set(wrong)))


def test_a_misspelt_field_is_found() -> None:
    edge = copy.deepcopy(one(of_ci("production"), "StatefulSet", "-edge"))
    edge["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    assert any("livenesProbe" in problem for problem in kubernetes.problems(edge, "1.29"))
    route = copy.deepcopy(one(of_ci("production"), "HTTPRoute", "-edge"))
    route["spec"]["rules"][0]["timeouts"]["reqest"] = "0s"
    assert any("reqest" in problem for problem in kubernetes.problems(route, "1.29"))
    assert list(kubernetes.problems({**edge, "apiVersion": "apps/v1beta9"}, "1.29"))


@pytest.mark.parametrize("values", NAMES)
def test_pods_name_each_volume_port_and_variable_once_and_mount_what_there_is(values: str) -> None:
    """What schemas cannot say, and the API server refuses all the same."""
    for each in of_ci(values):
        template = each["spec"].get("template") if each["kind"] in ("Deployment", "StatefulSet", "Job") else None
        if not template:
            continue
        pod, where = template["spec"], key(each)
        volumes = [volume["name"] for volume in pod.get("volumes", ())]
        volumes += [claim["metadata"]["name"] for claim in each["spec"].get("volumeClaimTemplates", ())]
        assert len(volumes) == len(set(volumes)), where
        for container in [*pod.get("initContainers", ()), *pod["containers"]]:
            for names in (
                [variable["name"] for variable in container.get("env", ())],
                [port["containerPort"] for port in container.get("ports", ())],
                [mount["mountPath"] for mount in container.get("volumeMounts", ())],
            ):
                assert len(names) == len(set(names)), f"{where} {container['name']}: {names}"
            assert {mount["name"] for mount in container.get("volumeMounts", ())} <= set(volumes), where
        assert template["metadata"]["labels"].items() >= each["spec"].get("selector", {}).get("matchLabels", {}).items()
