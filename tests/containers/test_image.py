"""The image by itself."""

import json
import time

from tests.containers.docker import IMAGE, WITH_ENGINE, attempt, docker

SEALED = ("run", "--rm", "--network", "none", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
READ_ONLY = (*SEALED, "--read-only", "--tmpfs", "/tmp", "--user", "1234567:7654321", "--memory", "512m")  # noqa: S108  # in there
MOST_MB = {IMAGE: 400, WITH_ENGINE: 1400}
"""Of the base, Debian's slim Python of 130 MB or what stands in for it, and of ours."""

ORPHANS = """
import os, signal, time
if os.fork() == 0:  # whose own child outlives it, and then has nobody
    if os.fork() == 0:
        time.sleep(0.2)
    os._exit(0)
os.wait()
time.sleep(1)
states = {p: open(f"/proc/{p}/stat").read().rsplit(")", 1)[1].split()[0] for p in os.listdir("/proc") if p.isdigit()}
print(len(states), "Z" in states.values())
"""
WRITES = """
import os, sys
for folder in ("/", "/opt/sluicegate", "/var/lib", "/etc", sys.prefix, *sys.path[1:]):
    if os.access(folder, os.W_OK):
        print(folder)
"""


def test_it_is_small(image: str) -> None:
    for tag, most in MOST_MB.items():
        assert int(docker("image", "inspect", tag, "--format", "{{.Size}}")) < most * 1e6, tag


def test_its_labels_and_its_user_are_for_those_who_check(image: str) -> None:
    (found,) = json.loads(docker("image", "inspect", image))
    assert found["Config"]["User"] == "65532:65532"
    assert found["Config"]["Labels"]["org.opencontainers.image.version"] == "0.1.0"
    assert "Healthcheck" not in found["Config"]


def test_any_user_runs_every_program_on_a_read_only_root(image: str) -> None:
    for command in (
        ["sluicegate", "--help"],
        ["nats-server", "--version"],
        ["python", "-m", "services.cli", "up", "--help"],
    ):
        docker(*READ_ONLY, image, *command)
    imports = "import services.analytics.app, services.audit.app, services.budget.app, services.console.app, services.edge.app"
    docker(*READ_ONLY, image, "python", "-c", f"{imports}, services.pricing.app, services.simulator.app")
    docker(*READ_ONLY, WITH_ENGINE, "python", "-c", "import chdb; print(chdb.query('SELECT 1'))")


def test_nothing_in_it_can_be_written_by_who_runs_it(image: str) -> None:
    assert docker(*SEALED, image, "python", "-c", WRITES).split() == []


def test_running_leaves_nothing_behind(image: str) -> None:
    name = docker("create", "--network", "none", image, "python", "-c", "import services.edge.app").strip()
    try:
        docker("start", "--attach", name)
        assert docker("diff", name) == ""
    finally:
        docker("rm", name)


def test_it_holds_neither_installers_nor_compilers(image: str) -> None:
    for absent in ("pip", "pip3", "gcc", "cc", "make", "curl", "wget", "git"):
        assert b"No such file" in attempt(*READ_ONLY, image, absent, "--version").stdout, absent
    for module in ("pip", "ensurepip", "setuptools", "pytest", "chdb", "pandas"):
        assert attempt(*READ_ONLY, image, "python", "-c", f"import {module}").returncode == 1, module


def test_a_program_that_waits_ends_when_it_is_told_to(image: str) -> None:
    """As process 1 it would not hear of it, and be killed at the end of its grace."""
    wait = ("sluicegate", "provision", "--wait-seconds", "300")
    name = docker("run", "--detach", "--network", "none", "--env", "ANALYTICS_BUS_URL=nats://127.0.0.1:9", image, *wait)
    try:
        began = time.monotonic()
        docker("stop", "--time", "30", name.strip())
        assert time.monotonic() - began < 10
        assert docker("inspect", name.strip(), "--format", "{{.State.ExitCode}}").strip() == "143"
    finally:
        docker("rm", "--force", name.strip())


def test_the_dead_are_buried(image: str) -> None:
    assert docker(*READ_ONLY, image, "python", "-c", ORPHANS).strip() == "2 False"
