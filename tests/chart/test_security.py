"""The restricted Pod Security Standard with a read-only root, and less than it allows."""

import json

import pytest

from tests.chart.render import NAMES, Object, containers, of_ci, one, pods, text

VOLUMES = {"configMap", "secret", "emptyDir", "projected", "downwardAPI", "csi", "ephemeral", "persistentVolumeClaim"}


@pytest.mark.parametrize("values", NAMES)
def test_every_pod_meets_the_restricted_standard(values: str) -> None:
    for where, template in pods(of_ci(values)):
        pod = template["spec"]
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True, where
        assert security.get("runAsUser", 1) > 0, where
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, where
        assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & pod.keys(), where
        for volume in pod.get("volumes", ()):
            assert volume.keys() - {"name"} <= VOLUMES, f"{where}: {volume}"
        for container in containers(template):
            _restricted(f"{where} {container['name']}", container)


def _restricted(where: str, container: Object) -> None:
    security = container["securityContext"]
    assert security["allowPrivilegeEscalation"] is False, where
    assert security["capabilities"] == {"drop": ["ALL"]}, where
    assert security["readOnlyRootFilesystem"] is True, where
    assert not security.get("privileged"), where
    assert all("hostPort" not in port for port in container.get("ports", ())), where


@pytest.mark.parametrize("values", NAMES)
def test_no_pod_can_speak_to_the_clusters_api_or_sees_service_links(values: str) -> None:
    accounts = {each["metadata"]["name"]: each for each in of_ci(values) if each["kind"] == "ServiceAccount"}
    used = []
    for where, template in pods(of_ci(values)):
        pod = template["spec"]
        assert pod["automountServiceAccountToken"] is False, where
        assert pod["enableServiceLinks"] is False, where
        used.append((pod["serviceAccountName"], template["metadata"]["labels"]["app.kubernetes.io/component"]))
    assert {name for name, _ in used} == accounts.keys()
    assert all(name.endswith(f"-{part}") for name, part in used), "each has its own"
    assert all(account["automountServiceAccountToken"] is False for account in accounts.values())
    assert not [each["kind"] for each in of_ci(values) if "Role" in each["kind"]]


@pytest.mark.parametrize("values", NAMES)
def test_no_secret_is_made_and_none_is_written_down(values: str) -> None:
    assert not [each for each in of_ci(values) if each["kind"] == "Secret"]
    for where, template in pods(of_ci(values)):
        for container in containers(template):
            for variable in container.get("env", ()):
                if any(word in variable["name"] for word in ("PASSWORD", "TOKEN", "_USER")):
                    assert "secretKeyRef" in variable["valueFrom"], f"{where}: {variable}"


@pytest.mark.parametrize("values", NAMES)
def test_every_container_says_what_it_needs_and_what_it_may_take(values: str) -> None:
    for where, template in pods(of_ci(values)):
        for container in containers(template):
            if container["name"] in ("beside", "before"):  # of the values file, not ours
                continue
            resources = container["resources"]
            assert {"cpu", "memory"} <= resources["requests"].keys(), f"{where} {container['name']}"
            assert "memory" in resources["limits"], f"{where} {container['name']}"
            assert "cpu" not in resources["limits"], "a limit of the processor stalls streams"


def test_a_cluster_that_gives_out_users_is_left_to_do_so() -> None:
    for where, template in pods(of_ci("openshift")):
        assert not {"runAsUser", "runAsGroup", "fsGroup"} & template["spec"]["securityContext"].keys(), where


def test_an_image_by_digest_is_the_only_one_that_our_containers_run() -> None:
    images = {container["image"] for _, template in pods(of_ci("production")) for container in containers(template)}
    assert images == {"registry.acme.example/sluicegate@sha256:" + "0123456789abcdef" * 4}
    for _, template in pods(of_ci("production")):
        assert template["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    assert "sluicegate:9.9.9" in text("trial", {"image": {"tag": "9.9.9"}})


def test_provider_credentials_are_files_that_the_edge_alone_can_read() -> None:
    edge = one(of_ci("production"), "StatefulSet", "-edge")["spec"]["template"]["spec"]
    (mount,) = [mount for mount in edge["containers"][0]["volumeMounts"] if mount["name"] == "credential-anthropic"]
    assert mount == {
        "name": "credential-anthropic",
        "mountPath": "/etc/sluicegate/credentials/anthropic",
        "readOnly": True,
    }
    having = [where for where, template in pods(of_ci("production")) if "anthropic-key" in json.dumps(template)]
    assert having == ["StatefulSet/gate-sluicegate-edge"]
