"""`sluicegate doctor`"""

import json
import os
import shutil
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib import resources
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console

from services.cli import options, output
from services.cli.api import Target
from services.cli.commands.status import fetch, local
from services.cli.core import doctor
from services.cli.core.doctor import Finding
from services.cli.errors import Trouble
from services.cli.output import Column
from services.cli.supervisor import organisation, ports
from services.cli.supervisor.data import Layout
from services.cli.supervisor.plan import Options
from services.cli.supervisor.program import nats_server
from shared import clock

MARKS = {"ok": "ok", "warn": "WARN", "fail": "FAIL"}
COLUMNS = (
    Column("", "level", lambda level: MARKS[level]),
    Column("check", "check"),
    Column("", "says"),
    Column("what to do", "todo"),
)


@click.command("doctor")
@options.as_json
@options.targeted
def command(as_json: bool, target: Target) -> None:
    """Check this installation and say what to mend. Exit code 1 when something must be."""
    with Console(stderr=True).status("looking"):
        findings = list(examine(target))
    rows = [msgspec.to_builtins(finding) for finding in findings]
    output.show(rows, COLUMNS, as_json=as_json)
    raise SystemExit(doctor.exit_code(findings))


def examine(target: Target) -> Iterator[Finding]:
    """Everything that can be looked at: the machine always, the installation when it runs."""
    running = None if target.url else target.running()
    yield from _machine(target)
    yield from _ports(running)
    if running:
        yield from _processes(running)
        yield from _broker(running)
    else:
        yield Finding(level="warn", check="sluicegate", says="does not run here", todo="start it with `sluicegate up`")
    if running or target.url:
        yield from _console(target, running)


def _machine(target: Target) -> Iterator[Finding]:
    layout = Layout(target.data_dir)
    yield doctor.ok("python", f"{sys.version.split()[0]} at {sys.executable}")
    try:
        yield doctor.ok("broker program", nats_server())
    except Trouble as trouble:
        yield Finding(level="fail", check="broker program", says=trouble.message, todo="make install")
    nearest = next(path for path in (layout.root.resolve(), *layout.root.resolve().parents) if path.exists())
    yield doctor.disk(shutil.disk_usage(nearest).free)
    if not os.access(nearest, os.W_OK):
        yield Finding(
            level="fail",
            check="data directory",
            says=f"{nearest} cannot be written",
            todo="choose another with --data-dir",
        )
    for path in (layout.root, layout.admin_token, layout.given_token, layout.first_key):
        if path.exists():
            yield doctor.modes(str(path), path.stat().st_mode & 0o777)
    yield _price_book()


def _price_book() -> Finding:
    """The book of this release, which is what pricing publishes."""
    book = json.loads(resources.files("services.pricing").joinpath("book.json").read_text())
    return doctor.price_book(book["version"], (clock.now() - clock.parse(book["published_at"])) // 86_400_000_000)


def _ports(running: dict[str, Any] | None) -> Iterator[Finding]:
    usual = Options()
    numbers = {"edge": usual.edge_port, "console": usual.console_port, "clickhouse": usual.clickhouse_port,
               "nats": usual.nats_port}  # fmt: skip
    for name, number in (running or numbers).items():
        if name in numbers:
            yield doctor.port(name, number, running=bool(running), free=ports.is_free(number), answers=_answers(number))


def _answers(port: int) -> bool:
    try:
        socket.create_connection((ports.LOOPBACK, port), timeout=2).close()
    except OSError:
        return False
    return True


def _processes(running: dict[str, Any]) -> Iterator[Finding]:
    for process in local(running):
        name, state = process["name"], process["state"]
        if state == "ready":
            yield doctor.ok(f"service {name}", "ready")
        else:
            yield Finding(
                level="fail",
                check=f"service {name}",
                says=state,
                todo=f"see the log logs/{name}.log in the data directory",
            )


def _broker(running: dict[str, Any]) -> Iterator[Finding]:
    before = time.time()
    try:
        varz = fetch(f"http://{ports.LOOPBACK}:{running['nats_monitor']}/varz")
    except urllib.error.HTTPError:
        varz = None
    middle = (before + time.time()) / 2
    if varz is None:
        yield doctor.broker_sync(None)
        return
    yield doctor.broker_sync(bool(varz.get("jetstream", {}).get("config", {}).get("sync_always")))
    yield doctor.clock("broker", (datetime.fromisoformat(varz["now"]).timestamp() - middle) * 1_000)


def _console(target: Target, running: dict[str, Any] | None) -> Iterator[Finding]:
    try:
        url = target.console_url()
        yield doctor.clock("console", _skew_of_http(url))
        api = target.api()
        document = api.get("/api/v1/organisation")
        yield doctor.keys(sum(key["state"] == "active" for key in api.all("/api/v1/keys")))
    except Trouble as trouble:
        yield Finding(level="fail", check="console", says=trouble.message, todo="see `sluicegate status`")
        return
    if running is None:
        return  # the credentials are on another machine
    for provider, reference in organisation.references(document):
        yield doctor.credential(provider["name"], reference, _problem(reference, running))


def _skew_of_http(url: str) -> float | None:
    """Theirs minus ours in ms. The Date header has whole seconds: the middle of its second, 0 where ours is within it."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    before = time.time()
    try:
        with opener.open(f"{url}/healthz", timeout=5) as answer:
            date = answer.headers.get("Date")
    except OSError:
        return None
    ours = (before + time.time()) / 2
    if not date:
        return None
    theirs = parsedate_to_datetime(date).replace(tzinfo=UTC).timestamp()
    if theirs - 0.1 <= ours <= theirs + 1.1:
        return 0.0
    return (theirs + 0.5 - ours) * 1_000


def _problem(reference: str, running: dict[str, Any]) -> str:
    """Why the running edge cannot resolve a reference; "" when it can. The secret itself is not looked at."""
    scheme, _, rest = reference.partition(":")
    if scheme == "env":
        return "" if rest in _names_given_to(running["pids"]["edge"][0]) else "edge was started without it"
    if scheme == "file":
        path = Path(rest)
        if not os.access(path, os.R_OK):
            return "the file cannot be read"
        return "" if path.stat().st_size else "the file is empty"
    return "this kind of reference is not known"


def _names_given_to(pid: int) -> set[str]:
    """Names of the variables a process was started with; ours where the system does not tell."""
    try:
        content = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return set(os.environ)
    return {entry.partition(b"=")[0].decode(errors="replace") for entry in content.split(b"\0") if entry}
