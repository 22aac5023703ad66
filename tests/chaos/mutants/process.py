"""Become a service with one rule broken: `process.py MUTANT SERVICE [ARGUMENTS…]`; service `cli` is the supervisor.

Run as a file, so that it works from any folder without a path in the environment.
"""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[3]))
    from tests.chaos.mutants import faults  # the path above leads there

    mutant, service = sys.argv[1:3]
    sys.argv = [service, *sys.argv[3:]]
    faults.break_rule(mutant, service)
    runpy.run_module(f"services.{service}", run_name="__main__")
