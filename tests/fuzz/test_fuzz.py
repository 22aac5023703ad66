"""The corpus again, and some thousand new cases of each target: the same ones each time. `make fuzz` looks further."""

import time
from pathlib import Path

import pytest

from tests.fuzz.corpus import kept, paths
from tests.fuzz.mutation import WORDS, Mutator
from tests.fuzz.targets import TARGETS

SECONDS = 5.0
MOST = {"request": 5_000, "answer": 5_000, "facts": 20_000, "stream": 3_000, "door": 50_000, "messages": 50_000}
SLOWEST_SECONDS = 2.0


@pytest.mark.parametrize("path", [path for name in TARGETS for path in paths(name)], ids=lambda path: path.name)
def test_a_case_of_the_corpus_breaks_no_promise(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_new_cases_break_no_promise(name: str) -> None:
    """As many as fit into a few seconds, in an order that does not depend on the machine. None takes long."""
    mutator, check = Mutator(1, kept(name), WORDS[name]), TARGETS[name]
    began = before = time.monotonic()
    for number in range(MOST[name]):
        data = mutator.next()
        try:
            check(data)
        except Exception as error:
            raise AssertionError(f"case {number}: {data!r}") from error
        after = time.monotonic()
        assert after - before < SLOWEST_SECONDS, f"case {number}: {data!r}"
        if after - began > SECONDS:
            break
        before = after
