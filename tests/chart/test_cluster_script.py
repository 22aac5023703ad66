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
KUBECTL = """#!/bin/sh
echo "kubectl $*" >>"$CALLS"
case "$*" in
  *"get nodes"*) echo "$NODES" ;;
  *"--dry-run=server"*) echo "service/x serverside-applied"; echo "$WARNING" >&2 ;;
  *"pods/sluicegate-edge-1/eviction"*) cat >/dev/null; echo "$SECOND_EVICTION" ;;
  *"eviction"*|*"apply -f -"*) cat >/dev/null ;;
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
        "WARNING": "",
        "SECOND_EVICTION": "Cannot evict pod as it would violate the pod's disruption budget.",
    }
    for name, text in (("KUBECTL", KUBECTL), ("HELM", HELM), ("sleep", "#!/bin/sh\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
        if name.isupper():
            played[name] = str(tmp_path / name)
    played["PATH"] = f"{tmp_path}:{played['PATH']}"
    return subprocess.run(
        [str(FOLDER / "run")], env=played | environ, capture_output=True, text=True, check=False, timeout=120
    )


def test_the_script_is_without_the_mistakes_that_shells_allow() -> None:
    done = subprocess.run([program("shellcheck"), str(FOLDER / "run")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("required", "code"), [("", 0), ("1", 1)])
def test_without_a_cluster_it_says_what_was_not_run(tmp_path: Path, required: str, code: int) -> None:
    nothing = {"KUBECTL": program("kubectl"), "HELM": program("helm4"), "PATH": "/usr/bin:/bin"}
    done = run(tmp_path, CLUSTER_REQUIRED=required, **nothing)
    assert done.returncode == code
    assert "cluster: NOT RUN, because the API server of the current context is missing here" in done.stderr
    without_kind = run(tmp_path, CLUSTER="", PATH="/usr/bin:/bin")
    assert "NOT RUN, because kind (or CLUSTER=current) is missing" in without_kind.stderr
    assert not (tmp_path / "calls").exists(), "no cluster is touched that nobody named"
    assert "rolling upgrade under 120 streams" in done.stderr


def test_on_a_node_it_installs_upgrades_goes_back_evicts_and_rolls_under_streams(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    order = iter(calls)
    for wanted in (
        "enforce=restricted",
        "--server-side --dry-run=server",
        "upgrade --install sluicegate",
        "test sluicegate",
        "upgrade --install sluicegate",
        "test sluicegate",
        "rollback sluicegate 1",
        "test sluicegate",
        "pods/sluicegate-edge-0/eviction",
        "pods/sluicegate-edge-1/eviction",
        "create configmap load",
        "podAnnotations.rolled",
        "--for=condition=complete job/load",
        "test sluicegate",
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
