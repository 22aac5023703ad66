"""`python -m tests.bench.soak --seconds 600`: a real edge process under 1 MB bodies, long streams and difficult clients.

Its memory must be flat: after the first quarter, which fills pools and caches, the median of the last quarter may exceed
that of the second by 5 % and 2 MB, and what is resident in the end may not exceed 150 MB. When all clients have gone, no
connection, no attempt, no record in the spool and no descriptor more than at the start (but the provider's kept
connections) may be left. Result: JSON on standard output; status 1 when a rule is broken.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import msgspec
import uvloop

from services.edge.settings import Settings
from shared.bus import open_bus, provision
from shared.settings import environ_of
from tests.bench.strain import CROWD, Crowd, Provider
from tests.fixtures import organisation
from tests.fixtures.broker import Broker
from tests.fixtures.owner import StubOwner

MOST_RESIDENT_MB = 150.0
GROWTH, GROWTH_MB = 1.05, 2.0
KEPT_CONNECTIONS = 64 + 8  # upstream_max_idle_connections, and what is just being closed


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """The process at one moment. at: seconds since the start. spool_mb: of its folder."""

    at: float
    resident_mb: float
    descriptors: int
    threads: int
    connections: int
    attempts: int
    spool_records: int
    spool_mb: float


class Watched:
    """The edge's process, from outside."""

    def __init__(self, pid: int, metrics_port: int, data_dir: Path) -> None:
        self._pid, self._port, self._data_dir = pid, metrics_port, data_dir
        self._began = time.monotonic()

    def sample(self) -> Sample:
        proc, told = Path(f"/proc/{self._pid}"), self._metrics()
        status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines() if ":" in line)
        return Sample(
            at=round(time.monotonic() - self._began, 1),
            resident_mb=round(int(status["VmRSS"].split()[0]) / 1024, 1),
            descriptors=sum(1 for _ in (proc / "fd").iterdir()),
            threads=int(status["Threads"]),
            connections=told["sluicegate_edge_connections"],
            attempts=told["sluicegate_edge_live_attempts"],
            spool_records=told["sluicegate_edge_spool_records"],
            spool_mb=round(sum(path.stat().st_size for path in self._data_dir.rglob("*")) / 2**20, 1),
        )

    def _metrics(self) -> dict[str, int]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        pairs = (line.split() for line in lines if line.startswith("sluicegate_edge_") and "{" not in line)
        return {name: int(float(value)) for name, value in pairs}


def verdict(samples: list[Sample], left: Sample) -> list[str]:
    """What is wrong; see the module's docstring."""
    quarter = max(1, len(samples) // 4)
    early = statistics.median(sample.resident_mb for sample in samples[quarter : 2 * quarter])
    late = statistics.median(sample.resident_mb for sample in samples[-quarter:])
    wrong = list[str]()
    if late > early * GROWTH + GROWTH_MB:
        wrong.append(f"memory grew from {early} to {late} MB")
    if left.resident_mb > MOST_RESIDENT_MB:
        wrong.append(f"{left.resident_mb} MB are resident in the end")
    if left.descriptors > samples[0].descriptors + KEPT_CONNECTIONS:
        wrong.append(f"{left.descriptors} descriptors are open in the end, {samples[0].descriptors} were at the start")
    for what in ("connections", "attempts", "spool_records"):
        if number := getattr(left, what):
            wrong.append(f"{number} {what} are left")
    return wrong


def slope(samples: list[Sample]) -> float:
    """kB a minute of resident memory after the first quarter."""
    later = samples[len(samples) // 4 :]
    if len(later) < 2:
        return 0.0
    found = statistics.linear_regression([sample.at for sample in later], [sample.resident_mb for sample in later])
    return round(found.slope * 60 * 1024, 1)


async def run(seconds: float, folder: Path) -> dict[str, object]:
    broker = Broker(folder / "nats")
    broker.start()
    try:
        async with open_bus(broker.settings(), "soak") as bus:
            await provision(bus)
            await StubOwner().start(bus)
            await organisation.publish(bus, organisation.entities(f"http://127.0.0.1:{await Provider().start()}"))
            return await strained(seconds, folder, broker)
    finally:
        broker.stop()


async def strained(seconds: float, folder: Path, broker: Broker) -> dict[str, object]:
    ready, data_dir = folder / "ready.json", folder / "edge"
    settings = Settings(bus=broker.settings(), listen_port=0, data_dir=str(data_dir), ready_file=str(ready))
    environ = os.environ | environ_of(settings, "EDGE") | {"TEST_PROVIDER_KEY": "sk-soak"}
    with (folder / "edge.log").open("w") as log:
        edge = await asyncio.create_subprocess_exec(sys.executable, "-m", "services.edge", env=environ, stderr=log)
    try:
        while not ready.exists():
            assert edge.returncode is None, (folder / "edge.log").read_text()[-2000:]
            await asyncio.sleep(0.05)
        ports = json.loads(ready.read_text())["ports"]
        return await watched(seconds, Watched(edge.pid, ports["http"], data_dir), Crowd(ports["edge"]))
    finally:
        edge.terminate()
        await asyncio.wait_for(edge.wait(), 30)


async def watched(seconds: float, process: Watched, crowd: Crowd) -> dict[str, object]:
    samples = [await asyncio.to_thread(process.sample)]
    crowd.start()
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        await asyncio.sleep(max(0.5, min(5.0, seconds / 60)))
        samples.append(await asyncio.to_thread(process.sample))
        sys.stderr.write(msgspec.json.encode(samples[-1]).decode() + "\n")
    await crowd.stop()
    left = await settled(process)
    wrong = verdict(samples, left)
    wrong += [f"{count} × {what}" for what, count in crowd.counts.items() if what not in CROWD]
    return {
        "seconds": seconds,
        "exchanges": dict(crowd.counts),
        "start": msgspec.to_builtins(samples[0]),
        "loaded": msgspec.to_builtins(samples[-1]),
        "end": msgspec.to_builtins(left),
        "most_resident_mb": max(sample.resident_mb for sample in samples),
        "slope_kb_per_minute": slope(samples),
        "wrong": wrong,
    }


async def settled(process: Watched) -> Sample:
    """When nothing is under way any more; after 20 s, as it is."""
    for _ in range(20):
        sample = await asyncio.to_thread(process.sample)
        if not (sample.connections or sample.attempts or sample.spool_records):
            break
        await asyncio.sleep(1)
    return sample


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.soak")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = uvloop.run(run(asked.seconds, Path(folder)))
    text = json.dumps(found, indent=2, ensure_ascii=False)
    sys.stdout.write(text + "\n")
    if asked.out:
        asked.out.write_text(text)
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
