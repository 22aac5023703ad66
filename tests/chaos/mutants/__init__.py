"""Rules of the protocol broken on purpose, in the processes that the suite starts; never by a flag in the product.

CHAOS_MUTANT names the one in force; the harness then starts each process through `process.py`, which breaks the rule
before the service begins. `python -m tests.chaos.mutants` breaks them in turn and demands that the suite fails.
"""

import os
import sys
from pathlib import Path

VARIABLE = "CHAOS_MUTANT"
_HERE = Path(__file__).parent


def chosen() -> str:
    return os.environ.get(VARIABLE, "")


def supervisor() -> tuple[str, ...]:
    """The command before `up`: ours, or a mutant's."""
    if not chosen():
        return (str(Path(sys.executable).parent / "sluicegate"),)
    return (sys.executable, "-P", str(_HERE / "process.py"), chosen(), "cli")


def service(name: str) -> list[str]:
    """The command of one service, as the supervisor starts it."""
    if not chosen():
        return [sys.executable, "-P", "-m", f"services.{name}"]
    return [sys.executable, "-P", str(_HERE / "process.py"), chosen(), name]
