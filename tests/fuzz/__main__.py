"""`python -m tests.fuzz [TARGET…] [--seconds N | --cases N] [--seed N] [--atheris]`: many cases, on one core.

Prints one JSON line per target. What breaks a promise is written to the corpus, and ends the run with status 1.
With --atheris one target is run by libFuzzer, guided by the coverage of the edge's own code (`pip install atheris`).
"""

import argparse
import importlib
import json
import sys
import tempfile
import time

from tests.fuzz.corpus import FOLDER, keep, kept
from tests.fuzz.mutation import WORDS, Mutator


def main() -> int:
    asked = argparse.ArgumentParser(prog="python -m tests.fuzz")
    asked.add_argument("targets", nargs="*", choices=[[], *WORDS])
    asked.add_argument("--seconds", type=float, default=60.0)
    asked.add_argument("--cases", type=int, default=0)
    asked.add_argument("--seed", type=int, default=None)
    asked.add_argument("--atheris", action="store_true")
    said = asked.parse_args()
    names = said.targets or list(WORDS)
    if said.atheris:
        return guided(names[0], said.seconds)
    seed = time.time_ns() if said.seed is None else said.seed
    return max(blind(name, said.seconds / len(names), said.cases, seed) for name in names)


def blind(name: str, seconds: float, cases: int, seed: int) -> int:
    """Without guidance, but fast: half a million cases in a few minutes."""
    from tests.fuzz.targets import TARGETS  # noqa: PLC0415  # not before atheris has hooked the imports

    check, mutator, done = TARGETS[name], Mutator(seed, kept(name), WORDS[name]), 0
    began = time.monotonic()
    while done < cases if cases else time.monotonic() - began < seconds:
        data = mutator.next()
        done += 1
        try:
            check(data)
        except BaseException:
            sys.stderr.write(f"{name}: case {done} of seed {seed} is kept as {keep(name, data)}\n")
            raise
    told = {"target": name, "seed": seed, "cases": done, "seconds": round(time.monotonic() - began, 1)}
    sys.stdout.write(json.dumps(told) + "\n")
    return 0


def guided(name: str, seconds: float) -> int:
    """libFuzzer's own loop; it ends the process."""
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["services.edge", "shared"]):
        from tests.fuzz.targets import TARGETS  # noqa: PLC0415  # instrumented while it is imported
    found = tempfile.mkdtemp(prefix=f"fuzz-{name}-")  # libFuzzer's own corpus
    options = [f"-max_total_time={int(seconds)}", "-max_len=8192", "-timeout=20", "-rss_limit_mb=2048"]
    atheris.Setup([sys.argv[0], found, str(FOLDER / name), *options], TARGETS[name])
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
