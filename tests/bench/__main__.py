"""`python -m tests.bench`: CPU per request of the gateway alone, by the kernel's accounting, in one run.

Beside the edge: direct (no gateway: the load's own figures), nginx, where it is installed, and the edge's protocols
without what governs ("wire"). The edge runs with everything on: key, reserve, spool with fsync, usage event, metrics,
log line; the owner alone is played. Results: JSON on standard output and, with `--out FILE`, in a file.
"""

import argparse
import asyncio
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from services.edge.settings import Settings
from shared.bus import open_bus, provision
from shared.settings import environ_of
from tests.fixtures import organisation
from tests.fixtures.broker import Broker, free_port
from tests.fixtures.owner import StubOwner

CASES = {"stream": "75 kB body, 200-event stream in a burst", "json": "1 kB body, 1 kB JSON answer"}
TICK = os.sysconf("SC_CLK_TCK")

NGINX = """
worker_processes 1; daemon off; pid {dir}/nginx.pid; error_log stderr;
events {{ worker_connections 1024; }}
http {{
  access_log {dir}/access.log; client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;
  fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  client_max_body_size 32m; client_body_buffer_size 1m; keepalive_requests 1000000;
  upstream provider {{ server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://provider; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }}
  }}
}}
"""


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of these processes so far."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(int(child) for child in found)]


def load(port: int, case: str, clients: int, seconds: float) -> dict[str, float]:
    command = [
        sys.executable,
        "-m",
        "tests.bench.load",
        str(port),
        case,
        str(clients),
        str(seconds),
        organisation.SECRET,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 30)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def measure(pid: int, port: int, case: str, clients: int, seconds: float) -> dict[str, float]:
    """pid 0: nothing is in between."""
    load(port, case, clients, min(1.0, seconds))  # warm
    pids = children(pid) if pid else []
    before = cpu_seconds(pids)
    found = load(port, case, clients, seconds)
    spent = cpu_seconds(pids) - before
    if pid:
        found["cpu_us_per_request"] = round(spent * 1_000_000 / max(1, found["requests"]), 1)
        found["resident_mb"] = round(sum(resident_bytes(each) for each in pids) / 2**20, 1)
    found["per_second"] = round(found["requests"] / found["seconds"])
    return found


@contextmanager
def process(
    command: list[str], environ: dict[str, str] | None = None, **options: object
) -> Iterator[subprocess.Popen[str]]:
    running = subprocess.Popen(command, text=True, env=os.environ | (environ or {}), **options)  # type: ignore[call-overload]  # passed through
    try:
        yield running
    finally:
        running.terminate()
        running.wait(15)


def waiting(ready: Path, running: "subprocess.Popen[str]") -> int:
    """The edge's port, once it is ready."""
    for _ in range(500):
        if ready.exists():
            port: int = json.loads(ready.read_text())["ports"]["edge"]
            return port
        if running.poll() is not None:
            break
        time.sleep(0.02)
    raise RuntimeError("the edge did not start")


def wire(upstream: int, case: str, args: argparse.Namespace) -> dict[str, float]:
    """The edge's protocols without anything that governs: what forwarding alone costs."""
    command = [sys.executable, "-m", "tests.bench.wire", str(upstream)]
    with process(command, stdout=subprocess.PIPE) as running:
        assert running.stdout
        return measure(running.pid, int(running.stdout.readline()), case, args.clients, args.seconds)


def nginx(folder: Path, upstream: int, case: str, args: argparse.Namespace) -> dict[str, float] | None:
    binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if not binary:
        return None
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(dir=folder, port=port, upstream=upstream))
    with process([binary, "-p", str(folder), "-c", str(config)], stderr=subprocess.DEVNULL) as running:
        return measure(running.pid, port, case, args.clients, args.seconds)


async def run(args: argparse.Namespace, folder: Path) -> dict[str, object]:
    broker = Broker(folder / "nats")
    broker.start()
    command = [sys.executable, "-m", "tests.bench.provider"]
    try:
        with process(command, stdout=subprocess.PIPE) as provider:
            assert provider.stdout
            upstream = int(provider.stdout.readline())
            async with open_bus(broker.settings("bench"), "bench") as bus:
                await provision(bus)
                await StubOwner().start(bus)
                await organisation.publish(bus, organisation.entities(f"http://127.0.0.1:{upstream}"))
                return await cases(args, folder, broker, upstream)
    finally:
        broker.stop()


async def cases(args: argparse.Namespace, folder: Path, broker: Broker, upstream: int) -> dict[str, object]:
    ready = folder / "ready.json"
    settings = Settings(
        bus=broker.settings("bench"), listen_port=0, data_dir=str(folder / "edge"), ready_file=str(ready)
    )
    environ = environ_of(settings, "EDGE") | {"TEST_PROVIDER_KEY": "sk-bench"}
    results: dict[str, object] = {}
    with (
        (folder / "edge.log").open("w") as log,
        process([sys.executable, "-m", "services.edge"], environ, stderr=log) as edge,
    ):
        port = await asyncio.to_thread(waiting, ready, edge)
        for case, what in CASES.items():
            results[case] = {
                "what": what,
                "direct": await asyncio.to_thread(measure, 0, upstream, case, args.clients, args.seconds),
                "nginx": await asyncio.to_thread(nginx, folder, upstream, case, args),
                "wire": await asyncio.to_thread(wire, upstream, case, args),
                "edge": await asyncio.to_thread(measure, edge.pid, port, case, args.clients, args.seconds),
            }
    return results


def machine() -> dict[str, object]:
    return {
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "uvloop": version("uvloop"),
        "httptools": version("httptools"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = asyncio.run(run(args, Path(folder)))
    text = json.dumps({"machine": machine(), "clients": args.clients, "owner": "played", "cases": results}, indent=2)
    sys.stdout.write(text + "\n")
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
