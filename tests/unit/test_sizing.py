"""docs/sizing.md: what its table says follows from its rules."""

import math
import re
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "sizing.md").read_text()
ROW = re.compile(r"^\| ([\d,]+) \| ([\d,]+) \| (\d+) \| (\d+) MB \| (.*?) \| (.*?) \| (.*?) \|$", re.MULTILINE)
CHUNK_US, ANALYTICS_MS, NATS_MS, BUDGET_MS = 37, 0.112, 0.089, 0.087
"""Of docs/performance.md on the day that the page names."""


def test_figures_are_the_ones_of_the_rules() -> None:
    for figure in (f"× {CHUNK_US} µs", "54 MB + streams × (24 kB + the body)", "÷ 0.6 of a core", "0.37 ms"):
        assert figure in PAGE
    for rounded in (ANALYTICS_MS, NATS_MS):
        assert f"× {rounded:.1f} ms" in PAGE
    assert f"× {BUDGET_MS:.2f} ms" in PAGE


def test_each_example_follows_from_the_rules() -> None:
    rows = ROW.findall(PAGE)
    assert len(rows) == 4
    for streams, rate, edges, memory_mb, analytics, nats, budget in rows:
        count, requests = int(streams.replace(",", "")), int(rate.replace(",", ""))
        assert requests == count / 20
        assert int(edges) == math.ceil(count * 20 * CHUNK_US / 1e6 / 0.6) + 1
        assert abs(int(memory_mb) - (54 + count / (int(edges) - 1) * 0.524)) < 6
        for told, milliseconds in ((analytics, ANALYTICS_MS), (nats, NATS_MS), (budget, BUDGET_MS)):
            cores = requests * milliseconds / 1000
            assert told == (f"{cores:.2f} cores" if cores >= 0.005 else "under 0.01")
