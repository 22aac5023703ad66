"""Play seeds again: `python -m tests.simulation --seed N [--mutant NAME]`, or look for new ones with `--seeds A B`."""

import argparse
import sys
import time
from collections import Counter

from tests.simulation.play import simulate
from tests.simulation.world import MUTANTS, RARE_MUTANTS


def main() -> int:
    asked = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    asked.add_argument("--seed", type=int, help="play this one and print its trace")
    asked.add_argument(
        "--seeds", type=int, nargs=2, metavar=("FIRST", "COUNT"), help="play many, print those that fail"
    )
    asked.add_argument("--mutant", choices=MUTANTS + RARE_MUTANTS, default="", help="with this fault built in")
    options = asked.parse_args()
    first, count = options.seeds or (options.seed or 0, 1)
    began, failed = time.monotonic(), 0
    seen: Counter[str] = Counter()
    for seed in range(first, first + count):
        outcome = simulate(seed, options.mutant)
        failed += bool(outcome.failures)
        if not options.seeds:
            sys.stdout.writelines(f"{line}\n" for line in outcome.trace)
        if outcome.failures or not options.seeds:
            found = "; ".join(outcome.failures) or "all is well"
            sys.stdout.write(f"seed {seed}: {found}\n")
        seen.update(outcome.seen)
    sys.stdout.writelines(f"{number:8} {what}\n" for what, number in sorted(seen.items()))
    sys.stdout.write(f"{count} seeds, {failed} failed, {time.monotonic() - began:.1f} s\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
