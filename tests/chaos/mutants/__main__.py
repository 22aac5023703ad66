"""Breaks one rule after the other and demands that the suite notices, for the reason that the rule is there for.

In the deterministic simulation first, then in real processes. Exit code 1 when a mutant survives.
"""

import asyncio
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tests.chaos import power
from tests.chaos.mutants import VARIABLE
from tests.chaos.mutants.faults import FAULTS
from tests.simulation.play import simulate
from tests.simulation.world import MUTANTS

SEEDS = range(200)
TESTS = Path(__file__).parents[1]
AT_ONCE = 2
MOST_SECONDS = 240.0


class Catch(msgspec.Struct, frozen=True):
    """test: what must fail under the mutant. why: what it must say. power: only where the power can be cut."""

    test: str
    why: str
    power: bool = False


_POWER = "test_power.py::test_"
_SCHEDULE = "test_schedules.py::test_"
CATCHES = {
    "broker_sync": Catch(
        f"{_POWER}after_a_power_cut_under_load_nothing_acknowledged_is_lost", r"P1: the bill has an", True
    ),
    "spool_sync": Catch(
        f"{_POWER}an_answer_that_its_client_has_seen_whole_is_on_the_edges_own_disk", r"P7: .* whole", True
    ),
    "message_ids": Catch(
        f"{_SCHEDULE}what_is_published_again_after_a_lost_acknowledgement_is_stored_once", r"P7: .* was stored twice"
    ),
    "fence": Catch(
        f"{_SCHEDULE}an_owner_that_was_frozen_while_another_took_over_writes_nothing_more",
        r"P7: ledger record \d+ was not written after the one before it",
    ),
    "resume_position": Catch(
        f"{_SCHEDULE}what_was_delivered_but_not_committed_is_read_again_by_the_next_owner", r"P1: every attempt closed"
    ),
}
assert CATCHES.keys() == FAULTS.keys()


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201  # the report of a program


def simulated() -> Iterator[str]:
    """Names of the simulation's mutants that no seed catches."""
    for mutant in MUTANTS:
        seed = next((seed for seed in SEEDS if simulate(seed, mutant).failures), None)
        if seed is None:
            say(f"SURVIVED  simulation  {mutant}: no seed of {len(SEEDS)} fails")
            yield mutant
        else:
            say(f"caught    simulation  {mutant}: seed {seed}, {simulate(seed, mutant).failures[0]}")


async def caught(mutant: str, catch: Catch, turn: asyncio.Semaphore) -> bool:
    """Run the one test with the mutant in force. One that fails for another reason has caught nothing."""
    async with turn:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix=f"chaos-{mutant}-") as folder:
            code, said = await _pytest(mutant, catch.test, folder)
        took = time.monotonic() - began
    found = re.search(f"^E .*?({catch.why}.*)$", said, re.MULTILINE)
    if code == 1 and found:
        say(f"caught    processes   {mutant}: {found.group(1)} ({took:.0f} s)")
        return True
    say(
        f"SURVIVED  processes   {mutant}: exit code {code}, and nothing said /{catch.why}/ ({took:.0f} s)\n{said[-4_000:]}"
    )
    return False


async def _pytest(mutant: str, test: str, folder: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-q", "--basetemp", f"{folder}/run", str(TESTS / test)),
        env=os.environ | {VARIABLE: mutant},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(MOST_SECONDS):
            said, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        said, _ = await process.communicate()
    return process.returncode or 0, said.decode(errors="replace")


async def processes() -> list[str]:
    """Names of the mutants of real processes that were not caught."""
    turn, wanted = asyncio.Semaphore(AT_ONCE), dict(CATCHES)
    if why := power.missing():
        for mutant in [name for name, catch in CATCHES.items() if catch.power]:
            del wanted[mutant]
            say(f"NOT TESTED HERE  processes  {mutant}: the power cannot be cut, {why}")
    results = await asyncio.gather(*(caught(mutant, catch, turn) for mutant, catch in wanted.items()))
    return [mutant for mutant, good in zip(wanted, results, strict=True) if not good]


def main() -> int:
    survivors = [*simulated(), *asyncio.run(processes())]
    say(f"{len(survivors)} of {len(MUTANTS) + len(CATCHES)} mutants survived {survivors or ''}")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
