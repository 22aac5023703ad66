"""The chart's alerts and dashboards as they are shipped, and what their queries name."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "sluicegate"
ALERT_FILES = sorted(CHART.glob("alerts/*.yaml"))
DASHBOARD_FILES = sorted(CHART.glob("dashboards/*.json"))

Json = dict[str, Any]

NOT_OURS = {  # of kube-state-metrics
    "kube_cronjob_status_last_schedule_time",
    "kube_cronjob_status_last_successful_time",
    "kube_cronjob_created",
}
_NAME = re.compile(r"\b(?:sluicegate|kube|process)_\w+")


def alerts(path: Path) -> list[Json]:
    return [rule for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


def all_alerts() -> list[Json]:
    return [rule for path in ALERT_FILES for rule in alerts(path)]


def dashboard(path: Path) -> Json:
    found: Json = json.loads(path.read_text())
    return found


def panels(path: Path) -> list[Json]:
    return [panel for panel in dashboard(path)["panels"] if panel["type"] != "row"]


def names(query: str) -> set[str]:
    """Series that a query asks for."""
    return set(_NAME.findall(re.sub(r'"[^"]*"', '""', query)))
