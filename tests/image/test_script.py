"""`make image-test` where there is no Docker; what it does where there is one, it shows by itself."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.chart.tools import program
from tests.image.sbom import ROOT

SCRIPT = ROOT / "tests" / "containers" / "run"


@pytest.mark.parametrize(("required", "code"), [("", 0), ("1", 1)])
def test_without_docker_it_says_what_was_not_run(tmp_path: Path, required: str, code: int) -> None:
    for name in ("bash", "dirname", "mkdir"):
        found = shutil.which(name)
        assert found
        (tmp_path / name).symlink_to(found)
    environ = {"PATH": str(tmp_path), "CONTAINERS_REQUIRED": required}
    done = subprocess.run(
        [str(tmp_path / "bash"), str(SCRIPT)], env=environ, capture_output=True, text=True, check=False, timeout=30
    )
    assert done.stderr == "containers: NOT RUN, because there is no docker (on Debian: apt-get install docker.io)\n"
    assert done.returncode == code


def test_the_script_is_without_the_mistakes_that_shells_allow() -> None:
    done = subprocess.run([program("shellcheck"), str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
