"""What processes have used, by the kernel's own books.

CPU is each process's own clock (CLOCK_PROCESS_CPUTIME_ID of another process): user and system time of all its threads,
also of those that have ended, in nanoseconds. /proc/PID/stat tells the same in ticks of 10 ms, which a round is too short for.
"""

import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

Processes = Mapping[str, Iterable[int]]
"""Name to pids."""
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def cpu_ns(pid: int) -> int:
    """So far. Raises OSError when there is no such process."""
    # clock_getcpuclockid(3) of Linux: the complement of the pid, and 2 for the scheduler's precise figure
    return time.clock_gettime_ns((~pid << 3) | 2)


def family(pid: int) -> list[int]:
    """The process and all that it and its children have started."""
    found = [pid]
    for parent in found:  # grows while it is walked
        try:
            tasks = list(Path(f"/proc/{parent}/task").iterdir())
            found += [int(child) for task in tasks for child in (task / "children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def resident_bytes(pid: int) -> int:
    """Memory of the process that is in RAM, shared pages included."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES


def used(processes: Processes) -> dict[int, int]:
    """CPU so far of each process that lives, by pid, in ns."""
    found = {}
    for pid in (pid for pids in processes.values() for pid in pids):
        try:
            found[pid] = cpu_ns(pid)
        except OSError:  # it has ended
            continue
    return found


def spent(processes: Processes, before: Mapping[int, int], after: Mapping[int, int]) -> dict[str, int]:
    """CPU by name between two readings, in ns. A process that was not there before counts whole, one that ended not at all."""
    return {
        name: sum(after[pid] - before.get(pid, 0) for pid in pids if pid in after) for name, pids in processes.items()
    }


def settle(processes: Processes, quiet: float = 0.05, seconds: float = 30.0) -> bool:
    """Wait until these processes together use less than `quiet` of a core; False when they do not get there in time."""
    step = 0.25
    before, deadline = used(processes), time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(step)
        after = used(processes)
        if sum(spent(processes, before, after).values()) < quiet * step * 1e9:
            return True
        before = after
    return False
