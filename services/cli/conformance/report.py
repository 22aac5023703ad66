"""The report: a table for people, JSON for programs, Markdown for a file."""

import json

import msgspec
from rich.markup import escape
from rich.table import Table

from services.cli.conformance.results import Report

STYLES = {"passed": "green", "partly": "yellow", "failed": "bold red", "not run": "dim", "not offered": "dim"}


def summary(report: Report) -> str:
    results = [verdict.result for verdict in report.items]
    counts = ", ".join(f"{results.count(result)} {result}" for result in STYLES if result in results)
    clients = f", with Claude Code {' and '.join(report.clients)}" if report.clients else ""
    return f"{len(results)} items{clients}: {counts}"


def table(report: Report) -> Table:
    """One line for each item; the evidence folds."""
    made = Table(box=None, pad_edge=False, header_style="bold", title=report.base_url, title_justify="left")
    made.add_column("", justify="right")
    made.add_column("level", no_wrap=True)
    made.add_column("item", overflow="fold", max_width=60)
    made.add_column("result", no_wrap=True)
    made.add_column("evidence", overflow="fold")
    for verdict in report.items:
        style = STYLES[verdict.result]
        cells = (str(verdict.item), verdict.level, escape(verdict.title), f"[{style}]{verdict.result}[/]")
        made.add_row(*cells, escape(verdict.evidence))
    return made


def as_json(report: Report) -> str:
    found = msgspec.to_builtins(report) | {
        "summary": summary(report),
        "failed": report.failed,
        "spotless": report.spotless,
    }
    return json.dumps(found, indent=2, ensure_ascii=False)


def markdown(report: Report) -> str:
    lines = [f"# Conformance of {report.base_url}", "", f"{report.program}, {report.at}. {summary(report)}.", ""]
    lines += ["| | level | item | result | evidence |", "|---|---|---|---|---|"]
    for verdict in report.items:
        cells = (str(verdict.item), verdict.level, verdict.title, verdict.result, verdict.evidence)
        row = " | ".join(cell.replace("|", r"\|") for cell in cells)
        lines.append(f"| {row} |")
    return "\n".join(lines) + "\n"
