"""Starting, going on, scaling and leaving."""

import pytest

from tests.chart.render import Object, objects, of_ci, one, text, workload

SINGLETONS = ("pricing", "audit", "analytics")
SERVICES = ("edge", "budget", *SINGLETONS, "console")


def pod(values: str, service: str, more: Object | None = None) -> Object:
    found: Object = workload(values, service, more)["spec"]["template"]["spec"]
    return found


def test_a_leaving_edge_has_time_for_its_longest_stream() -> None:
    assert pod("production", "edge")["terminationGracePeriodSeconds"] == 10 + 600 + 30
    more: Object = {
        "services": {"edge": {"settings": {"drain_seconds": 1200.5}, "preStopSeconds": 15, "stopMarginSeconds": 40}}
    }
    edge = pod("production", "edge", more)
    assert edge["terminationGracePeriodSeconds"] == 15 + 1201 + 40
    variables = {each["name"]: each.get("value") for each in edge["containers"][0]["env"]}
    assert variables["EDGE_DRAIN_SECONDS"] == "1200.5", "the pod and the process speak of the same"


def test_clients_notice_before_a_pod_is_told_to_stop() -> None:
    for service in ("edge", "console"):
        assert pod("production", service)["containers"][0]["lifecycle"] == {"preStop": {"sleep": {"seconds": 10}}}
    assert "lifecycle" not in pod("production", "budget")["containers"][0], "nobody connects to it"
    assert "lifecycle" not in pod("production", "edge", {"defaults": {"preStopSeconds": 0}})["containers"][0]


def test_the_oldest_kubernetes_waits_as_well_though_its_kubelet_cannot() -> None:
    old = one(of_ci("production", kube="1.29"), "StatefulSet", "-edge")["spec"]["template"]["spec"]["containers"][0]
    assert old["lifecycle"]["preStop"]["exec"]["command"] == ["python", "-c", "import time; time.sleep(10)"]


@pytest.mark.parametrize("service", SERVICES)
def test_probes_mean_what_they_say(service: str) -> None:
    container = pod("production", service)["containers"][0]
    assert container["startupProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    start = container["startupProbe"]
    assert start["periodSeconds"] * start["failureThreshold"] >= 600, "a replay takes its time"


@pytest.mark.parametrize("service", SERVICES)
def test_services_wait_for_their_streams(service: str) -> None:
    (waiting,) = pod("production", service)["initContainers"]
    assert waiting["args"] == ["sluicegate", "provision", "--check", "--of", service]
    prefix = f"{service.upper()}_BUS_"
    own = {each["name"]: each for each in pod("production", service)["containers"][0]["env"]}
    told = {each["name"]: each for each in waiting["env"]}
    assert {name: each for name, each in own.items() if name.startswith(prefix)}.items() <= told.items()


@pytest.mark.parametrize("service", SINGLETONS)
def test_a_log_with_one_writer_never_has_two(service: str) -> None:
    spec = workload("production", service)["spec"]
    assert spec["replicas"] == 1
    assert spec["strategy"] == {"type": "Recreate"}


def test_the_ledger_has_a_standby_that_has_a_name() -> None:
    assert workload("trial", "budget")["spec"]["replicas"] == 2
    spec = workload("production", "budget")["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    variables = {each["name"]: each for each in spec["template"]["spec"]["containers"][0]["env"]}
    assert variables["BUDGET_REPLICA"]["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    many = {
        each["name"]: each.get("value") for each in pod("production", "budget", {"shards": 3})["containers"][0]["env"]
    }
    assert many["BUDGET_SHARDS"] == "0,1,2"


def test_the_spool_is_on_a_volume_that_outlives_pod_and_scaling() -> None:
    spec = workload("production", "edge")["spec"]
    (claim,) = spec["volumeClaimTemplates"]
    container = spec["template"]["spec"]["containers"][0]
    (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == claim["metadata"]["name"]]
    (folder,) = [each["value"] for each in container["env"] if each["name"] == "EDGE_DATA_DIR"]
    assert folder.startswith(f"{mount['mountPath']}/")
    assert spec["persistentVolumeClaimRetentionPolicy"]["whenScaled"] == "Retain"
    trial = workload("trial", "edge", {"services": {"edge": {"persistence": {"enabled": False}}}})["spec"]
    assert "volumeClaimTemplates" not in trial
    assert {"name": "data", "emptyDir": {}} in trial["template"]["spec"]["volumes"]


def test_every_service_can_be_evicted_one_pod_at_a_time() -> None:
    for service in SERVICES:
        budget = one(of_ci("production"), "PodDisruptionBudget", f"-{service}")["spec"]
        assert budget["maxUnavailable"] == 1, "minAvailable of a single pod would keep its node for ever"
        assert budget["selector"] == workload("production", service)["spec"]["selector"]


def test_edges_come_at_once_and_go_slowly() -> None:
    scaler = one(of_ci("production"), "HorizontalPodAutoscaler", "-edge")["spec"]
    assert scaler["scaleTargetRef"]["kind"] == "StatefulSet"
    assert scaler["behavior"]["scaleUp"]["stabilizationWindowSeconds"] == 0
    assert scaler["behavior"]["scaleDown"]["stabilizationWindowSeconds"] >= 600
    assert scaler["behavior"]["scaleDown"]["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 600}]
    for values in ("production", "everything"):
        assert "replicas" not in workload(values, "edge")["spec"], "each release would undo the scaler's work"


def test_keda_scales_the_same_by_lag_on_the_broker() -> None:
    scaled = one(of_ci("everything"), "ScaledObject", "-edge")["spec"]
    assert scaled["triggers"][0]["type"] == "nats-jetstream"
    assert (
        scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"]
        >= 600
    )


def test_pods_are_spread_over_zones_and_nodes_without_being_kept_from_starting() -> None:
    spread = pod("production", "edge")["topologySpreadConstraints"]
    assert [each["topologyKey"] for each in spread] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    for each in spread:
        assert each["whenUnsatisfiable"] == "ScheduleAnyway"
        assert each["labelSelector"] == workload("production", "edge")["spec"]["selector"]


def test_a_way_in_has_no_time_limit() -> None:
    route = one(of_ci("production"), "HTTPRoute", "-edge")["spec"]
    assert route["rules"][0]["timeouts"] == {"request": "0s", "backendRequest": "0s"}
    annotations = one(of_ci("everything"), "Ingress", "-edge")["metadata"]["annotations"]
    assert annotations["nginx.ingress.kubernetes.io/proxy-buffering"] == "off"
    assert int(annotations["nginx.ingress.kubernetes.io/proxy-read-timeout"]) > 900, "longer than a model may think"
    assert annotations["nginx.ingress.kubernetes.io/proxy-next-upstream"] == "off", "a request sent twice is paid twice"


def test_ways_in_lead_to_services_that_are_there() -> None:
    for values in ("production", "everything", "openshift"):
        doors = {
            (each["metadata"]["name"], port["port"])
            for each in of_ci(values)
            if each["kind"] == "Service"
            for port in each["spec"]["ports"]
        }
        for each in of_ci(values):
            if each["kind"] == "Ingress":
                for rule in each["spec"]["rules"]:
                    backend = rule["http"]["paths"][0]["backend"]["service"]
                    assert (backend["name"], backend["port"]["number"]) in doors
            if each["kind"] == "HTTPRoute":
                backend = each["spec"]["rules"][0]["backendRefs"][0]
                assert (backend["name"], backend["port"]) in doors


def test_monitors_find_every_service_of_ours_and_nothing_else() -> None:
    monitor = one(of_ci("production"), "PodMonitor", "sluicegate")["spec"]
    (parts,) = monitor["selector"]["matchExpressions"]
    assert sorted(parts["values"]) == sorted(SERVICES)
    monitor = one(of_ci("everything"), "ServiceMonitor", "gate")["spec"]
    found = [
        each["metadata"]["name"]
        for each in of_ci("everything")
        if each["kind"] == "Service"
        and each["metadata"]["labels"].items() >= monitor["selector"]["matchLabels"].items()
    ]
    assert sorted(found) == sorted(f"gate-{service}-pods" for service in (*SERVICES, "telemetry", "simulator"))


def test_alerts_and_dashboards_of_the_chart_are_rendered_word_for_word() -> None:
    rules = one(of_ci("production"), "PrometheusRule", "sluicegate")["spec"]["groups"]
    annotations = [rule["annotations"] for group in rules for rule in group["rules"]]
    assert all("{{ $labels.namespace }}" in each["summary"] for each in annotations)
    assert all(each["runbook_url"].startswith("docs/alerts.md#") for each in annotations)
    elsewhere = {"metrics": {"rules": {"runbooks": "https://wiki.acme.example/sluicegate/"}}}
    assert "runbook_url: https://wiki.acme.example/sluicegate/alerts.md#sluicegatenoowner\n" in text(
        "production", elsewhere
    )
    dashboard = one(of_ci("production"), "ConfigMap", "dashboard-edge")
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert "{{status}}" in dashboard["data"]["edge.json"]
    assert not [each for each in objects("trial") if each["kind"] == "PrometheusRule"]
