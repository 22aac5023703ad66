"""Writes the chart's Grafana dashboards from `helm.panels`.

`python -m helm.dashboards` writes them; `--check` compares and ends with 1 where they are not what it would write.
"""

import json
import sys
from itertools import count
from pathlib import Path
from typing import Any

from helm.panels import DASHBOARDS, Dashboard, Panel

FOLDER = Path(__file__).parent / "sluicegate" / "dashboards"
FILTER = 'namespace=~"$namespace", job=~"$job"'
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
HEIGHTS = {"timeseries": 8, "stat": 4, "row": 1}
COLUMNS = 24

Json = dict[str, Any]


def written() -> dict[Path, str]:
    return {FOLDER / f"{each.uid}.json": json.dumps(rendered(each), indent=1) + "\n" for each in DASHBOARDS}


def rendered(dashboard: Dashboard) -> Json:
    return {
        "title": dashboard.title,
        "uid": f"sluicegate-{dashboard.uid}",
        "description": dashboard.says,
        "tags": ["sluicegate"],
        "schemaVersion": 39,
        "editable": False,
        "graphTooltip": 1,
        "time": {"from": "now-3h", "to": "now"},
        "refresh": "30s",
        "templating": {"list": _variables()},
        "panels": _panels(dashboard),
    }


def _variables() -> list[Json]:
    source = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
    return [
        source,
        _variable("namespace", "Namespace", "label_values(sluicegate_ready, namespace)"),
        _variable("job", "Job", 'label_values(sluicegate_ready{namespace=~"$namespace"}, job)'),
    ]


def _variable(name: str, label: str, query: str) -> Json:
    """All is `.*`, which also takes what has no such label, as outside of Kubernetes."""
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _panels(dashboard: Dashboard) -> list[Json]:
    """Left to right, then down; each row of the definition under a heading."""
    made: list[Json] = []
    numbers, y = count(1), 0
    for heading, panels in dashboard.rows:
        made.append({"id": next(numbers), "type": "row", "title": heading, "collapsed": False, "panels": []})
        made[-1]["gridPos"] = {"x": 0, "y": y, "w": COLUMNS, "h": HEIGHTS["row"]}
        x, y, height = 0, y + HEIGHTS["row"], 0
        for panel in panels:
            if x + panel.width > COLUMNS:
                x, y = 0, y + height
            height = HEIGHTS[panel.kind]
            place = {"x": x, "y": y, "w": panel.width, "h": height}
            made.append({"id": next(numbers), **_panel(panel), "gridPos": place})
            x += panel.width
        y += height
    return made


def _panel(panel: Panel) -> Json:
    targets = [
        {
            "refId": chr(ord("A") + place),
            "datasource": SOURCE,
            "expr": query.replace("@", FILTER),
            "legendFormat": legend,
        }
        for place, (query, legend) in enumerate(panel.queries)
    ]
    defaults: Json = {"unit": panel.unit, "min": 0}
    options: Json = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "none", "graphMode": "area"}
    if panel.kind == "timeseries":
        stacking = {"mode": "normal" if panel.stacked else "none"}
        defaults["custom"] = {"fillOpacity": 20 if panel.stacked else 0, "stacking": stacking, "showPoints": "never"}
        options = {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    return {
        "title": panel.title,
        "description": panel.says,
        "type": panel.kind,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": targets,
    }


def main() -> None:
    wanted = written()
    if "--check" in sys.argv[1:]:
        there = {path: path.read_text() for path in FOLDER.glob("*.json")}
        if there != wanted:
            sys.exit("the chart's dashboards are not what helm.panels says: run `python -m helm.dashboards`")
        return
    FOLDER.mkdir(exist_ok=True)
    for path in set(FOLDER.glob("*.json")) - wanted.keys():
        path.unlink()
    for path, content in wanted.items():
        path.write_text(content)


if __name__ == "__main__":
    main()
