"""`python -m tests.bench.compare OLD NEW`: what got worse between two results by more than the rounds differ anyway.

CPU is compared as a ratio to nginx in the same round, so that results of different days and machines can be. Exit code 1
when something got worse.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from tests.bench.figures import of_rounds
from tests.bench.results import Figure, Result, read

LEAST_CHANGE = 0.25
"""Of the old value: what a single round is taken to differ by."""

Verdict = Literal["worse", "better", "", "new", "gone"]


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One figure in both results; 0 where it is not there."""

    name: str
    unit: str
    old: float
    new: float
    verdict: Verdict


def to_nginx(result: Result) -> Iterator[Figure]:
    """CPU of every gateway and, in the 75 kB case, of every process, over nginx's in the same round."""
    for name, case in result.cases.items():
        rounds = [measured for measured in case.rounds if "nginx" in measured]
        if not rounds or name == "first_byte":
            continue
        for gateway in (gateway for gateway in rounds[0] if gateway not in ("nginx", "direct")):
            values = [each[gateway].cpu_us / each["nginx"].cpu_us for each in rounds if gateway in each]
            yield of_rounds(f"{name}.{gateway}", gateway, "×", values)
        if name == "stream":
            for process in rounds[0]["edge"].by_process:
                values = [each["edge"].by_process.get(process, 0) / each["nginx"].cpu_us for each in rounds]
                yield of_rounds(f"all.{process}", process, "×", values)


def comparable(result: Result) -> dict[str, Figure]:
    """By name. Plain CPU figures stand in as ratios; where there is no nginx, they are left out."""
    plain = {
        figure.name: figure
        for figure in result.figures
        if not figure.unit.startswith("µs") and ".direct" not in figure.name  # the bench's own
    }
    return plain | {figure.name: figure for figure in to_nginx(result)}


def verdict(old: Figure, new: Figure) -> Verdict:
    """By the median, against the wider of the two spreads."""
    least = max(old.high - old.low, new.high - new.low)
    if old.low == old.high or new.low == new.high:
        least = max(least, LEAST_CHANGE * abs(old.value))
    change = new.value - old.value
    if abs(change) <= least:
        return ""
    return "better" if (change > 0) == old.at_least else "worse"


def compare(old: Result, new: Result) -> list[Change]:
    before, after = comparable(old), comparable(new)
    changes = []
    for name in dict.fromkeys([*before, *after]):
        was, now = before.get(name), after.get(name)
        found: Verdict = verdict(was, now) if was and now else "gone" if was else "new"
        unit = (was or now).unit  # type: ignore[union-attr]  # one of them is there
        changes.append(
            Change(name=name, unit=unit, old=was.value if was else 0, new=now.value if now else 0, verdict=found)
        )
    return changes


def lines(changes: list[Change]) -> Iterator[str]:
    yield f"{'':<28}{'old':>12}{'new':>12}{'change':>9}"
    for change in changes:
        percent = f"{100 * (change.new / change.old - 1):+.0f} %" if change.old and change.new else ""
        yield (
            f"{change.name:<28}{change.old:>10.2f} {change.unit:<2}{change.new:>9.2f} {change.unit:<2}{percent:>8}  "
            f"{change.verdict}"
        ).rstrip()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.compare", description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    args = parser.parse_args()
    old, new = read(args.old), read(args.new)
    if old.machine["model"] != new.machine["model"]:
        sys.stdout.write("Two kinds of machine: ratios can be compared, times and memory hardly.\n")
    changes = compare(old, new)
    sys.stdout.write("\n".join(lines(changes)) + "\n")
    sys.exit(any(change.verdict == "worse" for change in changes))


if __name__ == "__main__":
    main()
