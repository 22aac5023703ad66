"""Once for each release of the chart: its values files and what they render, for all later ones to be upgrades of.

`python -m tests.chart.record`
"""

import shutil
from pathlib import Path

import yaml

from tests.chart.render import CHART, text

GOLDEN = Path(__file__).parent / "golden"
KEPT = ("trial", "production")
"""What people run; the other files are for tests of the present chart."""


def main() -> None:
    folder = GOLDEN / yaml.safe_load((CHART / "Chart.yaml").read_text())["version"]
    folder.mkdir(parents=True, exist_ok=True)
    for values in KEPT:
        shutil.copy(CHART / "ci" / f"{values}-values.yaml", folder)
        (folder / f"{values}.yaml").write_text(text(values))


if __name__ == "__main__":
    main()
