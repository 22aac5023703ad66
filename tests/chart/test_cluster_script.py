"""tests/cluster/run without a cluster: it says what it did not do; and with one that is played it does all of it, in order."""

import os
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from aiohttp import web

from tests.chart import kubernetes
from tests.chart.render import Object, objects
from tests.chart.tools import ROOT, program
from tests.cluster import streams

FOLDER = ROOT / "tests" / "cluster"
KUBECTL = r"""#!/bin/sh
echo "kubectl $*" >>"$CALLS"
case "$*" in
  *"get nodes --selector"*) echo "$PLAYED" ;;
  *"get nodes"*) echo "$NODES" ;;
  *"get job --selector"*) echo "job.batch/sluicegate-provision-1" ;;
  *"serviceAccountToken"*) echo "sluicegate-edge-0 $TOKEN" ;;
  *"get pod sluicegate-edge-0"*) date +%N ;;
  *"--replicas "*) echo "$*" | sed 's/.*--replicas //' >"$HOME/edges" ;;
  *"{.spec.replicas}"*) if [ "$(cat "$HOME/edges")" = 0 ]; then echo 2; else cat "$HOME/edges"; fi ;;
  *"--watch-only"*) [ -z "$TOUCHED" ] || echo "$TOUCHED" ;;
  *"get pods,"*) echo "$LEFT" ;;
  *"api-resources"*) echo pods ; echo persistentvolumeclaims ; echo events ;;
  *"--dry-run=server"*) echo "service/x serverside-applied"; echo "$WARNING" >&2 ;;
  *"pods/sluicegate-edge-1/eviction"*) cat >/dev/null; echo "$SECOND_EVICTION" ;;
  *"eviction"*|*"apply -f -"*) cat >"$HOME/applied" ;;
  *"logs job/reach"*)
    case "$(grep -A1 "labels:" "$HOME/applied")" in
      *walled*) echo "$WALLED" | sed '/^$/d' ;;
      *stranger*) printf 'sluicegate-%s\n' $STRANGER ;;
      *organisation*) echo sluicegate-console:8081 ;;
      *provision*) printf 'sluicegate-%s\n' nats:4222 clickhouse:8123 ;;
    esac ;;
esac
"""
HELM = """#!/bin/sh
echo "helm $*" >>"$CALLS"
case "$*" in *" template "*) exec "$REAL_HELM" "$@" ;; esac
"""


def run(tmp_path: Path, **environ: str) -> "subprocess.CompletedProcess[str]":
    played = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "KUBECONFIG": os.devnull,
        "CLUSTER": "current",
        "CALLS": str(tmp_path / "calls"),
        "REAL_HELM": program("helm4"),
        "NODES": "node/one",
        "PLAYED": "",
        "TOKEN": "",
        "TOUCHED": "",
        "WALLED": "",
        "STRANGER": "edge:8080 console:8081 simulator:8080 budget-pods:9090",
        "LEFT": "persistentvolumeclaim/data-sluicegate-edge-0",
        "WARNING": "",
        "SECOND_EVICTION": "Cannot evict pod as it would violate the pod's disruption budget.",
    }
    for name, text in (("KUBECTL", KUBECTL), ("HELM", HELM), ("HELM_BEFORE", HELM), ("sleep", "#!/bin/sh\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
        if name.isupper():
            played[name] = str(tmp_path / name)
    played["PATH"] = f"{tmp_path}:{played['PATH']}"
    return subprocess.run(
        [str(FOLDER / "run")], env=played | environ, capture_output=True, text=True, check=False, timeout=120
    )


def test_the_script_is_without_the_mistakes_that_shells_allow() -> None:
    scripts = [FOLDER / name for name in ("run", "control-plane", "node", "images", "build")]
    scripts.append(ROOT / "tests" / "containers" / "run")
    done = subprocess.run(
        [program("shellcheck"), "-x", *map(str, scripts)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("required", "code"), [("", 0), ("1", 1)])
def test_without_a_cluster_it_says_what_was_not_run(tmp_path: Path, required: str, code: int) -> None:
    nothing = {"KUBECTL": program("kubectl"), "HELM": program("helm4"), "PATH": "/usr/bin:/bin"}
    done = run(tmp_path, CLUSTER_REQUIRED=required, **nothing)
    assert done.returncode == code
    assert "cluster: NOT RUN, because the API server of the current context is missing here" in done.stderr
    without_kind = run(tmp_path, CLUSTER="", PATH="/usr/bin:/bin")
    assert "NOT RUN, because kind (or CLUSTER=current, or CLUSTER=binaries) is missing" in without_kind.stderr
    assert not (tmp_path / "calls").exists(), "no cluster is touched that nobody named"
    assert "rolling upgrade under 120 streams" in done.stderr


@pytest.mark.parametrize(("required", "code"), [("", 0), ("1", 1)])
def test_without_its_binaries_no_control_plane_is_started(tmp_path: Path, required: str, code: int) -> None:
    done = run(tmp_path, CLUSTER="binaries", KUBE_BINARIES=str(tmp_path), CLUSTER_REQUIRED=required)
    assert done.returncode == code
    assert f"NOT RUN, because etcd in KUBE_BINARIES={tmp_path} (tests/cluster/build) is missing" in done.stderr
    insisted = run(tmp_path, CLUSTER="binaries", KUBE_BINARIES=str(tmp_path), NODE="kubelet")
    assert "NOT RUN, because" in insisted.stderr
    assert not (tmp_path / "calls").exists()


def test_on_nodes_that_are_played_it_says_that_nothing_ran(tmp_path: Path) -> None:
    done = run(tmp_path, PLAYED="node/one")
    assert done.returncode == 0, done.stderr
    assert "NOT RUN, because nothing runs on the nodes of kwok" in done.stderr
    assert "rolling upgrade under 120 streams" in done.stderr
    calls = (tmp_path / "calls").read_text()
    assert " test sluicegate" not in calls
    assert "eviction" in calls, "the API server counts them by what the nodes say"
    assert run(tmp_path, PLAYED="node/one", CLUSTER_REQUIRED="1").returncode == 1


def test_where_no_policy_is_in_force_it_says_so_and_goes_on(tmp_path: Path) -> None:
    done = run(tmp_path, WALLED="sluicegate-edge:8080")
    assert done.returncode == 0, done.stderr
    assert "NOT RUN, because this network puts no NetworkPolicy in force" in done.stderr
    assert "--for=condition=complete job/load" in (tmp_path / "calls").read_text()


def test_on_a_node_it_installs_upgrades_goes_back_evicts_and_rolls_under_streams(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    order = iter(calls)
    for wanted in (
        "enforce=restricted",
        "--server-side --dry-run=server",
        "create quota no-pods --hard pods=0",
        "install gate",
        "upgrade gate helm/sluicegate -f tests/chart/golden",
        "rollback gate 1",
        "uninstall gate",
        "upgrade --install sluicegate",
        "test sluicegate",
        "upgrade --install sluicegate",
        "test sluicegate",
        "rollback sluicegate 1",
        "test sluicegate",
        "serviceAccountToken",
        "delete job.batch/sluicegate-provision-1",
        "upgrade --install sluicegate",
        "scale statefulset sluicegate-edge --replicas 3",
        "services.edge.autoscaling.enabled=true",
        "--replicas 0",
        "--force-conflicts",
        "test sluicegate",
        "pods/sluicegate-edge-0/eviction",
        "pods/sluicegate-edge-1/eviction",
        "create configmap load",
        "podAnnotations.rolled",
        "--for=condition=complete job/load",
        "test sluicegate",
        "uninstall sluicegate",
        "get pods,persistentvolumeclaims",
        "delete namespace sluicegate-cluster-test",
    ):
        assert any(wanted in call for call in order), f"{wanted} is not done, or not in its place: {calls}"
    assert "services.simulator" not in " ".join(calls), "a provider that goes would cut its own streams"


def test_without_a_node_the_server_side_dry_run_is_made_all_the_same(tmp_path: Path) -> None:
    done = run(tmp_path, NODES="")
    assert done.returncode == 0, done.stderr
    assert "k8s/examples/eks-alb/values.yaml" in done.stdout
    assert "NOT RUN, because a node is missing" in done.stderr


@pytest.mark.parametrize(
    ("told", "what"),
    [
        ({"WARNING": 'Warning: would violate PodSecurity "restricted:latest"'}, "is warned of"),
        ({"SECOND_EVICTION": ""}, "both edges could be evicted at once"),
        ({"STRANGER": "nats:4222 edge:8080"}, "reaches sluicegate-nats:4222 sluicegate-edge:8080"),
        ({"TOKEN": "token"}, "these pods have a token"),
        ({"TOUCHED": "pod/sluicegate-edge-1"}, "edges were touched"),
        ({"LEFT": "configmap/sluicegate-nats"}, "this is left"),
    ],
)
def test_what_a_cluster_refuses_or_wrongly_allows_ends_it(tmp_path: Path, told: dict[str, str], what: str) -> None:
    done = run(tmp_path, **told)
    assert done.returncode == 1
    assert what in done.stderr


def test_the_load_is_a_pod_that_a_restricted_namespace_admits() -> None:
    (load,) = [each for each in yaml.safe_load_all((FOLDER / "load.yaml").read_text()) if each]
    with_namespace: Object = load | {"metadata": load["metadata"] | {"namespace": "llm"}}
    assert not list(kubernetes.problems(with_namespace, "1.29"))
    assert objects("", yaml.safe_load((FOLDER / "values.yaml").read_text())), "the chart takes the values"


@pytest.mark.parametrize(
    ("body", "outcome"),
    [(b"event: message_start\n\nevent: message_stop\ndata: {}\n\n", "whole"), (b"event: message_start\n\n", "cut")],
)
async def test_a_stream_without_its_end_counts_as_cut(body: bytes, outcome: str) -> None:
    async def answer(request: web.Request) -> web.Response:
        assert request.headers["authorization"] == "Bearer vk"
        return web.Response(body=body, content_type="text/event-stream")

    app = web.Application()
    app.router.add_post("/v1/messages", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0]
        told = await streams.keep_open(f"http://{host}:{port}", "vk", 2, 0, until=time.monotonic() + 0.05)
    finally:
        await runner.cleanup()
    assert set(told) == {outcome}
