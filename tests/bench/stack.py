"""The whole of it, as `sluicegate up` starts it: the edge that is measured and every service behind it, all real."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from services.cli.supervisor import ports as port_files
from tests.bench.accounting import family
from tests.bench.processes import Gateway, process
from tests.fixtures.ports import ports_of_up

START_SECONDS = 60.0
KEY = "vk-of-the-bench"
WHAT = (
    "POST /v1/messages with a key; budgets of customer, team, key and the key's provider, all with room, so that "
    "attempts are paid from leases; spool and ledger synced to disk; usage event, metrics, log line; one edge worker"
)
ASKED = (
    "the same with rate limits of the key, also with room: budget decides over each attempt, on disk before its answer"
)
RATE_LIMITS = {"requests_per_minute": 100_000_000, "tokens_per_minute": 1_000_000_000_000}
ROOM = [{"limit_usd": 1_000_000, "period": "month"}]


def organisation(provider_port: int, asked: bool) -> dict[str, Any]:
    """Four tiers with room above one key. asked: what an edge cannot decide by itself is limited too."""
    key: dict[str, Any] = {
        "id": "bench",
        "owner": "bench@acme.example",
        "secret": KEY,
        "budgets": ROOM,
        "providers": [{"name": "anthropic", "budgets": ROOM}],
    }
    if asked:
        key["rate_limits"] = RATE_LIMITS
    team = {"id": "platform", "budgets": ROOM, "keys": [key]}
    address = f"http://127.0.0.1:{provider_port}"
    return {
        "contact": "platform@acme.example",
        "providers": [
            {"name": "anthropic", "kind": "anthropic", "base_url": address, "credential": "env:ANTHROPIC_API_KEY"}
        ],
        "customers": [{"id": "acme", "budgets": ROOM, "teams": [team]}],
    }


@contextmanager
def running(folder: Path, provider_port: int, asked: bool = False) -> Iterator[Gateway]:
    """State goes below `folder`, which should be on a real disk: what a sync costs is part of the figures."""
    folder.mkdir(exist_ok=True)
    document = folder / "org.yaml"
    document.write_text(json.dumps(organisation(provider_port, asked)))  # JSON is YAML
    data, log = folder / "data", folder / "up.log"
    program = str(Path(sys.executable).parent / "sluicegate")
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "ANTHROPIC_API_KEY": "sk-bench"}
    environ["SLUICEGATE_EDGE_MAX_CONNECTIONS_PER_KEY"] = "0"  # one key holds all the streams here
    arguments = ("--data-dir", str(data), "--org", str(document), *ports_of_up())
    with process(program, "up", *arguments, environ=environ, log=log, cwd=folder) as up:
        deadline = time.monotonic() + START_SECONDS
        while (found := port_files.read(data / "ports.json")) is None:
            if up.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"sluicegate up did not get ready: {log.read_text()[-2000:]}")
            time.sleep(0.05)

        def processes() -> dict[str, list[int]]:
            """The edge first; pids may have changed."""
            known: Any = port_files.read(data / "ports.json")
            names = sorted(known["pids"], key=lambda name: (name != "edge", name))
            return {name: family(known["pids"][name][0]) for name in names} | {"supervisor": [up.pid]}

        port = found["edge"]
        assert isinstance(port, int)
        name, what = ("asked", ASKED) if asked else ("edge", WHAT)
        yield Gateway(name=name, what=what, port=port, processes=processes, key=KEY)
