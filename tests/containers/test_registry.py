"""Image and chart by way of a registry, as people get them."""

import hashlib
import os
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.chart.render import CHART, HELMS, containers, helm, parsed, pods
from tests.containers.docker import docker
from tests.fixtures.ports import free_port
from tests.fixtures.waiting import until

VERSION = yaml.safe_load((CHART / "Chart.yaml").read_text())["version"]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a real one, on loopback."""
    folder, port = tmp_path_factory.mktemp("registry"), free_port()
    config = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder)}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    (folder / "config.yml").write_text(yaml.safe_dump(config))
    process = subprocess.Popen([os.environ["REGISTRY"], "serve", str(folder / "config.yml")], stderr=subprocess.DEVNULL)
    yield f"127.0.0.1:{port}"
    process.terminate()
    process.wait(10)


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/v2/", timeout=1) as answer:
            return bool(answer.status == 200)
    except urllib.error.URLError:
        return False


@pytest.mark.parametrize("of", HELMS)
async def test_the_chart_comes_back_as_it_was_pushed_and_runs_the_image_by_its_digest(
    registry: str,
    image: str,
    of: str,
    tmp_path: Path,
) -> None:
    await until(lambda: answers(registry), 20)
    digest = pushed(registry, image)
    assert helm("package", str(CHART), "--destination", str(tmp_path), of=of).returncode == 0
    package = tmp_path / f"sluicegate-{VERSION}.tgz"
    charts = f"oci://{registry}/charts"
    done = helm("push", str(package), charts, "--plain-http", of=of)
    assert done.returncode == 0, done.stderr
    back = tmp_path / "back"
    back.mkdir()
    done = helm("pull", f"{charts}/sluicegate", "--plain-http", "--destination", str(back), of=of)
    assert done.returncode == 0, done.stderr
    assert digest_of(back / package.name) == digest_of(package)
    told = ("--set", f"image.registry={registry}", "--set", f"image.digest={digest}")
    trial = ("-f", str(CHART / "ci" / "trial-values.yaml"))
    done = helm("template", "gate", f"{charts}/sluicegate", "--plain-http", *trial, *told, of=of)
    assert done.returncode == 0, done.stderr
    found = {each["image"] for _, pod in pods(parsed(done.stdout)) for each in containers(pod)}
    (ours,) = [name for name in found if "clickhouse" not in name]
    docker("pull", "--quiet", ours)
    assert docker("run", "--rm", "--network", "none", ours, "nats-server", "--version").startswith("nats-server")


def pushed(registry: str, image: str) -> str:
    """The digest that the registry has it by."""
    name = f"{registry}/sluicegate:0.1.0"
    docker("tag", image, name)
    found = re.search(r"digest: (sha256:[0-9a-f]{64})", docker("push", name, seconds=300))
    assert found
    return found[1]


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
