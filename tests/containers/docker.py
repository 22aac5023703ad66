"""Docker as these tests use it: the image, built once, and one run of the compose file."""

import json
import os
import random
import shlex
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from services.cli.api import Api
from tests.fixtures.ports import free_port
from tests.image.sbom import ROOT

IMAGE = "sluicegate:test"
WITH_ENGINE = f"{IMAGE}-chdb"
STAND_IN = "sluicegate-test-base"
BUILD_SECONDS = 1200.0


def docker(*arguments: str, seconds: float = 120.0, given: bytes | None = None) -> str:
    """What it printed, both ways; fails with it."""
    done = attempt(*arguments, seconds=seconds, given=given)
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stdout.decode()}"
    return done.stdout.decode()


def attempt(
    *arguments: str, seconds: float = 120.0, given: bytes | None = None
) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        ["docker", *arguments], input=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        check=False, timeout=seconds, cwd=ROOT,
    )  # fmt: skip


@pytest.fixture(scope="session")
def base() -> str:
    """The Dockerfile's own, or what stands in for it."""
    if tar := os.environ.get("BASE_TAR"):
        docker("import", tar, STAND_IN, seconds=300)
        return STAND_IN
    return os.environ["BASE"]


@pytest.fixture(scope="session")
def image(base: str) -> str:
    """Both images, built without a network from wheels/."""
    for tag, engine in ((IMAGE, ""), (WITH_ENGINE, "chdb")):
        told = ("--build-arg", f"BASE={base}", "--build-arg", f"ENGINE={engine}")
        began = time.monotonic()
        docker("build", "--network", "none", *told, "-t", tag, ".", seconds=BUILD_SECONDS)
        size = int(docker("image", "inspect", tag, "--format", "{{.Size}}"))
        print(f"{tag}: {size / 1e6:.0f} MB, built in {time.monotonic() - began:.0f} s")  # noqa: T201  # a figure to report
    return IMAGE


@dataclass
class Trial:
    """compose.yaml, under a name and on ports of its own, as a user that nobody knows, with 512 MB for each container."""

    project: str = field(default_factory=lambda: f"sluicegate-test-{os.getpid()}")
    user: str = field(default_factory=lambda: f"{random.randint(100_000, 2**31)}:{random.randint(100_000, 2**31)}")
    edge_port: int = field(default_factory=free_port)
    console_port: int = field(default_factory=free_port)

    @property
    def environ(self) -> Mapping[str, str]:
        own = {
            "SLUICEGATE_IMAGE": WITH_ENGINE,
            "SLUICEGATE_USER": self.user,
            "SLUICEGATE_PORT": str(self.edge_port),
            "SLUICEGATE_CONSOLE_PORT": str(self.console_port),
        }
        return {**os.environ, **own}

    @property
    def messages(self) -> str:
        return f"http://127.0.0.1:{self.edge_port}/anthropic/v1/messages"

    @property
    def api(self) -> Api:
        return Api(f"http://127.0.0.1:{self.console_port}", "trial")

    def compose(self, *arguments: str, seconds: float = 300.0) -> str:
        files = ("-f", "compose.yaml", "-f", str(Path(__file__).with_name("tight.yaml")))
        command = [*shlex.split(os.environ["COMPOSE"]), "-p", self.project, *files, *arguments]
        done = subprocess.run(
            command, env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            check=False, timeout=seconds, cwd=ROOT, text=True,
        )  # fmt: skip
        assert done.returncode == 0, f"{shlex.join(command)}: {done.stdout}"
        return done.stdout

    def container(self, service: str) -> str:
        return f"{self.project}-{service}-1"

    def inspect(self, service: str) -> dict[str, Any]:
        (found,) = json.loads(docker("inspect", self.container(service)))
        return dict(found)

    def python(self, service: str, code: str) -> str:
        """What a small program prints that runs beside the service."""
        return docker("exec", self.container(service), "python", "-c", code).strip()


@pytest.fixture(scope="module")
def trial(image: str) -> Iterator[Trial]:
    running = Trial()
    try:
        running.compose("up", "--detach", "--no-build")
        docker("wait", running.container("organisation"), seconds=120)
        yield running
    finally:
        running.compose("down", "--volumes", "--timeout", "5")
