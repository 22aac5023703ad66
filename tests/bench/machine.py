"""Where a run was made, and of what."""

import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from tests.bench import rivals
from tests.bench.gateways import nginx_binary

ROOT = Path(__file__).parents[2]


def machine(folder: Path) -> dict[str, str | int | float]:
    """folder: where the ledger will be synced to. The load is that of others: to be asked before the run."""
    return {
        "cores": os.cpu_count() or 0,
        "model": processor(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "filesystem": filesystem(folder),
        "load_average": round(os.getloadavg()[0], 2),
    }


def busy(machine: dict[str, str | int | float]) -> bool:
    """Whether a quarter of it was already taken."""
    return float(machine["load_average"]) > float(machine["cores"]) / 4


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def filesystem(folder: Path) -> str:
    """Its type; a sync to tmpfs costs nothing, so the figures would lie."""
    mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    inside = [(point, kind) for point, kind in mounts if folder.resolve().is_relative_to(point)]
    return max(inside, key=lambda mount: len(mount[0]))[1]


def versions(present: set[str]) -> dict[str, str]:
    """Of what took part."""
    found = {"python": platform.python_version()} | {name: version(name) for name in ("uvloop", "httptools")}
    found["nats-server"] = said(str(Path(sys.executable).parent / "nats-server"), "--version")
    if "nginx" in present:
        found["nginx"] = said(nginx_binary(), "-v").removeprefix("nginx/")
    return found | {name: pin.rpartition("==")[2] for name, pin in rivals.requirements().items() if name in present}


def said(program: str, option: str) -> str:
    """The last word of what it says of its version."""
    program = program if Path(program).exists() else shutil.which(Path(program).name) or program
    done = subprocess.run([program, option], capture_output=True, text=True, check=True)
    return (done.stdout + done.stderr).split()[-1]


def commit() -> tuple[str, bool]:
    """Short hash, and whether files differ from it."""
    git = ["git", "-C", str(ROOT)]
    name = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=True)
    changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    return name.stdout.strip(), bool(changed.stdout.strip())
