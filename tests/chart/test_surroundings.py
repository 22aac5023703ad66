"""k8s/: what stands beside the chart fits it, and the kinds it is made of."""

import copy
import functools
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.console.core.document import parse_organisation
from tests.chart import kubernetes
from tests.chart.render import CHART, HELMS, Object, containers, files, helm, key, one, parsed, pods, python_tool
from tests.chart.tools import ROOT, program
from tests.fixtures.stream_backup import BUCKETS, IN_ORDER

K8S = ROOT / "k8s"
EXAMPLES = tuple(path.parent.name for path in files(K8S, "examples/*/values.yaml"))
WRITTEN = [
    path
    for path in files(K8S, "**/*.yaml")
    if path.name not in ("values.yaml", "kustomization.yaml", "organisation.yaml")
]


@functools.cache
def rendered(values: str, of: str = "helm4", kube: str = "1.37") -> tuple[Object, ...]:
    """values: a file below k8s/, or JSON."""
    given = values if values.startswith("{") else (K8S / values).read_text()
    chart = ("template", "sluicegate", str(CHART), "--namespace", "sluicegate", "--kube-version", kube, "-f", "-")
    done = helm(*chart, of=of, given=given)
    assert done.returncode == 0, f"{values}: {done.stderr}"
    return tuple(parsed(done.stdout))


def example(name: str, of: str = "helm4", kube: str = "1.37") -> tuple[Object, ...]:
    return rendered(f"examples/{name}/values.yaml", of, kube)


def beside(path: str) -> list[Object]:
    return parsed((K8S / path).read_text())


def release_values(path: str, *way: str) -> str:
    found: Any = beside(path)[0]["spec"]
    for step in way:
        found = found[step]
    return json.dumps(found)


@pytest.mark.parametrize("of", HELMS)
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_renders_to_what_kubernetes_takes(name: str, of: str) -> None:
    version = "1.29" if of == "helm3" else "1.37"
    wrong = [problem for each in example(name, of, version) for problem in kubernetes.problems(each, version)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: str(path.relative_to(K8S)))
def test_what_stands_beside_is_of_kinds_we_know(path: Path) -> None:
    wrong = [
        f"{version}: {problem}"
        for each in parsed(path.read_text())
        for version in ("1.29", "1.37")
        for problem in kubernetes.problems(each, version)
    ]
    assert not wrong, "\n".join(wrong)


def test_a_misspelt_field_beside_is_found() -> None:
    policy = copy.deepcopy(beside("examples/gke-gateway/beside.yaml")[1])
    policy["spec"]["default"]["timeoutSecs"] = 1
    assert any("timeoutSecs" in problem for problem in kubernetes.problems(policy, "1.37"))
    release = copy.deepcopy(beside("flux/release.yaml")[0])
    release["metadata"]["namespaces"] = "x"
    assert any("namespaces" in problem for problem in kubernetes.problems(release, "1.37"))


def test_files_are_written_as_the_chart_is() -> None:
    written = [str(path) for path in files(K8S, "**/*.yaml")]
    done = python_tool("yamllint", "--strict", "-c", str(ROOT / "tests/chart/yamllint-written.yaml"), *written)
    assert done.returncode == 0, done.stdout


def secrets_of(found: tuple[Object, ...]) -> Iterator[str]:
    """All that pods and ways in take from Secrets, by name."""
    for _, pod in pods(found):
        for volume in pod["spec"].get("volumes", ()):
            yield from [volume["secret"]["secretName"]] if "secret" in volume else []
            for source in volume.get("projected", {}).get("sources", ()):
                yield from [source["secret"]["name"]] if "secret" in source else []
        for container in containers(pod):
            for variable in container.get("env", ()):
                reference = variable.get("valueFrom", {}).get("secretKeyRef")
                yield from [reference["name"]] if reference else []
    for each in found:
        if each["kind"] == "Ingress":
            yield from [tls["secretName"] for tls in each["spec"].get("tls", ())]


def test_external_secrets_bring_each_secret_that_is_asked_for() -> None:
    made = {each["metadata"]["name"]: each for each in beside("examples/external-secrets/beside.yaml")}
    asked = set(secrets_of(example("external-secrets")))
    assert asked == {name for name, each in made.items() if each["kind"] == "ExternalSecret"}
    (store,) = {each["spec"]["secretStoreRef"]["name"] for name, each in made.items() if name in asked}
    assert made[store]["kind"] == "SecretStore"


def test_certificates_are_the_ones_that_the_ways_in_show() -> None:
    found = example("cert-manager")
    made = {
        each["spec"]["secretName"]: each
        for each in beside("examples/cert-manager/beside.yaml")
        if each["kind"] == "Certificate" and each["metadata"]["namespace"] == "sluicegate"
    }
    for each in found:
        if each["kind"] == "Ingress":
            (tls,) = each["spec"]["tls"]
            assert made[tls["secretName"]]["spec"]["dnsNames"] == tls["hosts"]
    (bundle,) = [each for each in beside("examples/cert-manager/beside.yaml") if each["kind"] == "Bundle"]
    values = yaml.safe_load((K8S / "examples/cert-manager/values.yaml").read_text())
    assert bundle["metadata"]["name"] == values["caBundle"]["existingConfigMap"], "a Bundle's ConfigMap has its name"
    assert made[values["nats"]["tls"]["existingSecret"]]["spec"]["usages"] == ["client auth"]


def test_load_balancers_let_streams_end_that_a_leaving_pod_lets_end() -> None:
    grace = one(example("eks-alb"), "StatefulSet", "-edge")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    attributes = one(example("eks-alb"), "Ingress", "-edge")["metadata"]["annotations"][
        "alb.ingress.kubernetes.io/target-group-attributes"
    ]
    assert attributes == f"deregistration_delay.timeout_seconds={grace}"
    policy = one(beside("examples/gke-gateway/beside.yaml")[1:2], "GCPBackendPolicy", "-edge")["spec"]["default"]
    assert policy["connectionDraining"]["drainingTimeoutSec"] == grace
    assert policy["timeoutSec"] > 900, "longer than a model may think"


def test_policies_of_gke_name_services_and_ports_of_the_chart() -> None:
    found = example("gke-gateway")
    services = {
        each["metadata"]["name"]: each["spec"]["ports"][0]["port"] for each in found if each["kind"] == "Service"
    }
    objects = beside("examples/gke-gateway/beside.yaml")
    for each in objects:
        if target := each["spec"].get("targetRef"):
            assert target["name"] in services
    checks = {each["metadata"]["name"]: each["spec"] for each in objects if each["kind"] == "HealthCheckPolicy"}
    assert checks["sluicegate-edge"]["default"]["config"]["httpHealthCheck"]["port"] == services["sluicegate-edge-pods"]
    routes = [each for each in found if each["kind"] == "HTTPRoute"]
    assert {each["spec"]["parentRefs"][0]["name"] for each in routes} == {objects[0]["metadata"]["name"]}


def test_the_list_of_images_is_all_that_a_closed_network_must_hold() -> None:
    images = {container["image"] for _, pod in pods(example("air-gapped")) for container in containers(pod)}
    assert sorted(images) == (K8S / "examples/air-gapped/images.txt").read_text().split()


def test_nothing_leaves_a_closed_network() -> None:
    for each in example("air-gapped"):
        if each["kind"] == "NetworkPolicy":
            for rule in each["spec"].get("egress", ()):
                assert rule["to"], f"{key(each)} reaches anywhere"
                assert not [peer for peer in rule["to"] if "ipBlock" in peer], key(each)


def test_organisations_are_ones_that_the_console_takes() -> None:
    values = (
        (K8S / "examples/air-gapped/values.yaml").read_text(),
        (K8S / "kustomize/organisation.yaml").read_text(),
        release_values("argocd/application.yaml", "source", "helm", "valuesObject"),
        release_values("flux/release.yaml", "values"),
        (K8S / "tilt/values.yaml").read_text(),
        (ROOT / "tests/cluster/values.yaml").read_text(),
    )
    for each in values:
        document = yaml.safe_load(each)["organisation"]["document"]
        assert parse_organisation(document.encode(), is_json=False).customers


@pytest.mark.parametrize(
    "values",
    [
        release_values("argocd/application.yaml", "source", "helm", "valuesObject"),
        release_values("flux/release.yaml", "values"),
    ],
    ids=["argocd", "flux"],
)
def test_a_release_by_git_has_values_that_the_chart_takes(values: str) -> None:
    assert one(rendered(values), "StatefulSet", "-edge")


def test_releases_by_git_are_of_this_chart() -> None:
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["version"]
    assert beside("argocd/application.yaml")[0]["spec"]["source"]["targetRevision"] == version
    major, minor, _ = version.split(".")
    assert beside("flux/source.yaml")[0]["spec"]["ref"] == {"semver": f"{major}.{minor}.x"}


def test_flux_waits_as_long_as_all_edges_may_drain() -> None:
    spec = beside("flux/release.yaml")[0]["spec"]
    edge = one(rendered(json.dumps(spec["values"])), "StatefulSet", "-edge")["spec"]
    longest = edge["replicas"] * edge["template"]["spec"]["terminationGracePeriodSeconds"]
    assert int(spec["timeout"].removesuffix("m")) * 60 > longest


def test_the_broker_writes_before_it_acknowledges_on_three_nodes() -> None:
    values = yaml.safe_load((K8S / "nats/values.yaml").read_text())
    assert values["config"]["cluster"]["replicas"] == 3
    assert values["config"]["jetstream"]["merge"] == {"sync_interval": "always"}
    (user,) = values["config"]["merge"]["accounts"]["SLUICEGATE"]["users"]
    for value in user.values():
        assert value.removeprefix("<< $").removesuffix(" >>") in values["container"]["env"]


def test_a_nightly_backup_saves_every_stream_in_the_order_that_was_proved() -> None:
    (job,) = [each for each in beside("nats/backup.yaml") if each["kind"] == "CronJob"]
    ((_, pod),) = pods([job])
    script = containers(pod)[0]["command"][-1]
    (streams,) = re.findall(r"for stream in (.*); do", script)
    assert streams.split() == [*IN_ORDER, *BUCKETS]
    documented = re.findall(r"for stream in (.*?); do", (ROOT / "docs" / "backup.md").read_text())
    assert documented
    assert all(each.split() in ([*IN_ORDER, *BUCKETS], ["*/"]) for each in documented)


def test_examples_find_the_clickhouse_that_stands_beside_them() -> None:
    (installation,) = beside("clickhouse/installation.yaml")
    (cluster,) = installation["spec"]["configuration"]["clusters"]
    host = "clickhouse-{name}.{namespace}.svc".format(**installation["metadata"])
    for name in EXAMPLES:
        values = yaml.safe_load((K8S / f"examples/{name}/values.yaml").read_text())["clickhouse"]
        assert f"//{host}:" in values["url"], name
        assert (values["cluster"], values["engine"]) == (cluster["name"], "ReplicatedMergeTree"), name
    (keeper,) = beside("clickhouse/keeper.yaml")
    (node,) = installation["spec"]["configuration"]["zookeeper"]["nodes"]
    assert node["host"] == f"keeper-{keeper['metadata']['name']}", "the operator's name for the Service"
    trial = yaml.safe_load((CHART / "values.yaml").read_text())["dev"]["bundled"]["clickhouse"]["image"]
    (server,) = installation["spec"]["templates"]["podTemplates"]
    assert server["spec"]["containers"][0]["image"] == trial, "one version of ClickHouse, the tested one"


@pytest.mark.parametrize("of", HELMS)
def test_the_overlay_inflates_the_chart_and_patches_it(of: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [program("kubectl"), "kustomize", "--enable-helm", "--helm-command", program(of), str(K8S / "kustomize")],
        env={**os.environ, "HOME": str(tmp_path)}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = parsed(done.stdout)
    assert one(found, "StatefulSet", "-edge")["spec"]["template"]["spec"]["runtimeClassName"] == "gvisor"
    document = one(found, "ConfigMap", "-organisation")["data"]["org.yaml"]
    assert yaml.safe_load(document)["customers"]
    assert not [problem for each in found for problem in kubernetes.problems(each, "1.37")]
