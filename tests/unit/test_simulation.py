"""Two hundred simulated deployments, and proof that they would notice."""

from collections import Counter

import pytest

from tests.simulation.play import simulate
from tests.simulation.world import MUTANTS

SEEDS = range(200)
MUST_HAPPEN = (
    *(
        "granted",
        "denied busy",
        "denied spent",
        "denied rate_limited",
        "sent governed",
        "sent ungoverned",
        "killed at a step",
    ),
    *("Held", "Extended", "TruedUp", "Withdrawn", "Spent", "Decided", "LimitsApplied", "EpochBegan"),
    *("Leased", "Returned", "granted on a lease", "lease unanswered", "lease of a dead edge freed"),
    *("entry settled", "entry recovered", "entry void", "entry expired", "entry correction"),
)


@pytest.fixture(scope="module")
def seen() -> "Counter[str]":
    """What happened in all seeds together; they are played here once."""
    counted: Counter[str] = Counter()
    for seed in SEEDS:
        outcome = simulate(seed)
        again = f"python -m tests.simulation --seed {seed}"
        assert not outcome.failures, f"{again}\n" + "\n".join((*outcome.failures, *outcome.trace[-40:]))
        counted.update(outcome.seen)
    return counted


def test_no_seed_overspends_loses_or_doubles_a_dollar(seen: "Counter[str]") -> None:
    assert seen["granted"] > 10 * len(SEEDS)


@pytest.mark.parametrize("what", MUST_HAPPEN)
def test_the_simulations_cover_what_the_protocol_is_for(seen: "Counter[str]", what: str) -> None:
    assert seen[what] >= 10, f"{what}: {seen[what]} times in {len(SEEDS)} seeds"


def test_a_seed_plays_the_same_way_again() -> None:
    assert simulate(7) == simulate(7)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_broken_rule_of_the_protocol_is_caught(mutant: str) -> None:
    assert any(simulate(seed, mutant).failures for seed in SEEDS), f"{mutant} goes unnoticed"
