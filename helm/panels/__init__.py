"""What the chart's dashboards show; `helm.dashboards` makes Grafana's files of it."""

from helm.panels.edge import EDGE
from helm.panels.ledger import LEDGER
from helm.panels.panel import Dashboard, Panel
from helm.panels.spend import SPEND

DASHBOARDS = (SPEND, EDGE, LEDGER)

__all__ = ["DASHBOARDS", "Dashboard", "Panel"]
