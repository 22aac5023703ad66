"""A kustomize overlay can inflate the chart and patch what it rendered."""

import os
import subprocess
from pathlib import Path

import yaml

from tests.chart.render import CHART, one, parsed
from tests.chart.tools import program

OVERLAY = {
    "helmGlobals": {"chartHome": "charts"},
    "namespace": "llm",
    "helmCharts": [{"name": "sluicegate", "releaseName": "gate", "valuesFile": "values.yaml"}],
    "patches": [
        {
            "target": {"kind": "StatefulSet", "name": "gate-sluicegate-edge"},
            "patch": '[{"op": "replace", "path": "/spec/replicas", "value": 5}]',
        }
    ],
}


def test_an_overlay_inflates_the_chart_and_patches_it(tmp_path: Path) -> None:
    (tmp_path / "charts").mkdir()
    (tmp_path / "charts" / "sluicegate").symlink_to(CHART)
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(OVERLAY))
    (tmp_path / "values.yaml").write_text((CHART / "ci" / "trial-values.yaml").read_text())
    done = subprocess.run(
        [program("kubectl"), "kustomize", "--enable-helm", "--helm-command", program("helm3"), str(tmp_path)],
        env={**os.environ, "HOME": str(tmp_path)}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = parsed(done.stdout)
    assert one(found, "StatefulSet", "-edge")["spec"]["replicas"] == 5
    assert one(found, "Deployment", "-console")["metadata"]["namespace"] == "llm"
