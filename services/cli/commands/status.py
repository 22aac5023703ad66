"""`sluicegate status`"""

import json
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import click

from services.cli import options, output
from services.cli.api import Target
from services.cli.errors import Trouble
from services.cli.output import Column, words
from services.cli.supervisor.ports import LOOPBACK

PROCESSES = (
    Column("service", "name"),
    Column("state", "state"),
    Column("port", "ports", words),
    Column("pid", "pids", words),
)
EDGES = (
    Column("edge", "edge"),
    Column("heard at", "at"),
    Column("config", "config_rev", right=True),
    Column("decisions", "decision_version", right=True),
    Column("in flight", "live", right=True),
    Column("in spool", "spool_records", right=True),
    Column("draining", "draining", words),
)
SERVICES = (Column("service", "name"), Column("as the console sees it", "state"), Column("", "detail"))
STREAMS = (Column("log", "stream"), Column("last sequence", "seq", output.count, right=True))


@click.command("status")
@options.as_json
@options.targeted
def command(as_json: bool, target: Target) -> None:
    """What runs, and whether it is ready. Exit code 1 when something is not."""
    running = None if target.url else target.running()
    processes = local(running) if running else []
    try:
        console: dict[str, Any] = target.api().get("/api/v1/status")
    except Trouble as trouble:
        if running is None:
            raise
        console = {"error": trouble.message}
    if as_json:
        output.show_json({"processes": processes, "console": console})
    else:
        _show(processes, console)
    # the console has heard of an edge only after its next heartbeat: where we can ask a process itself, that counts
    states = [process["state"] for process in processes or console.get("services", ())]
    if "error" in console or {"down", "not ready"} & set(states):
        raise SystemExit(1)


def local(running: dict[str, Any]) -> list[dict[str, Any]]:
    """The processes of this machine's `up`, asked side by side."""
    names = list(running["pids"])
    with ThreadPoolExecutor(len(names)) as pool:
        states = list(pool.map(lambda name: _state(name, running), names))
    public = {"edge": "edge", "console": "console", "analytics": "clickhouse", "nats": "nats"}
    return [
        {
            "name": name,
            "state": state,
            "pids": running["pids"][name],
            "ports": [running[public[kind]]]
            if (kind := name.partition("-")[0]) in public
            else [running["http"].get(name)],
        }
        for name, state in zip(names, states, strict=True)
    ]


def _state(name: str, running: dict[str, Any]) -> str:
    """ready, not ready, or down."""
    url = (
        f"http://{LOOPBACK}:{running['nats_monitor']}/healthz"
        if name == "nats"
        else f"http://{LOOPBACK}:{running['http'].get(name, 0)}/readyz"
    )
    try:
        return "ready" if fetch(url) is not None else "down"
    except urllib.error.HTTPError:
        return "not ready"


def fetch(url: str, seconds: float = 3.0) -> Any:
    """The JSON of a process on this machine, None when it does not answer. Raises HTTPError when it refuses."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never through a proxy to ourselves
    try:
        with opener.open(url, timeout=seconds) as answer:
            return json.load(answer)
    except urllib.error.HTTPError:
        raise
    except (OSError, ValueError):
        return None


def _show(processes: list[dict[str, Any]], console: dict[str, Any]) -> None:
    if processes:
        output.show(processes, PROCESSES, as_json=False)
        print()
    if "error" in console:
        print(console["error"])
        return
    print(f"version {console['version']}, organisation at revision {console['config_rev']}\n")
    output.show(console["services"], SERVICES, as_json=False)
    print()
    output.show(console["edges"], EDGES, as_json=False, empty="no edge has been heard")
    print()
    output.show(console["streams"], STREAMS, as_json=False)
