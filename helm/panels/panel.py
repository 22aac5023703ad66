"""A dashboard in words: rows of panels, each with its queries, unit and one sentence of what it tells.

`@` stands for the filter by the dashboard's variables.
"""

from dataclasses import dataclass

USD = "/ 1e9"


@dataclass(frozen=True, kw_only=True)
class Panel:
    """queries: (PromQL, legend). kind: timeseries or stat. unit: as Grafana names it. width: of 24."""

    title: str
    says: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    kind: str = "timeseries"
    width: int = 12
    stacked: bool = False


Row = tuple[str, tuple[Panel, ...]]


@dataclass(frozen=True, kw_only=True)
class Dashboard:
    """uid: also the name of its file."""

    uid: str
    title: str
    says: str
    rows: tuple[Row, ...]


def stat(title: str, says: str, unit: str, query: str) -> Panel:
    return Panel(title=title, says=says, unit=unit, queries=((query, ""),), kind="stat", width=6)


def lines(title: str, says: str, unit: str, *queries: tuple[str, str], stacked: bool = False) -> Panel:
    return Panel(title=title, says=says, unit=unit, queries=queries, stacked=stacked)


def quantiles(title: str, says: str, histogram: str, by: str = "") -> Panel:
    rates = f"sum by ({by + ', ' if by else ''}le) (rate({histogram}_bucket{{@}}[$__rate_interval]))"
    which = f"{{{{{by}}}}} " if by else ""
    queries = tuple(
        (f"histogram_quantile({share}, {rates})", f"{which}p{share * 100:g}") for share in (0.5, 0.95, 0.99)
    )
    return lines(title, says, "s", *queries)
