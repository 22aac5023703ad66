"""`python -m tests.bench.chart RESULT [SVG]`: a picture of what each gateway takes, for the docs. Light and dark in one file."""

import argparse
import math
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path

from tests.bench.results import Figure, Result, read
from tests.bench.table import NAMES, number

PICTURE = Path(__file__).parents[2] / "docs" / "images" / "performance.svg"
WIDTH, MARGIN, GUTTER = 960, 28, 40
BAR, STEP, LABEL, VALUE = 16, 27, 160, 60
CASES = {
    "stream": ("75 kB in, a burst of 200 events out", "µs per request"),
    "json": ("1 kB in, 1 kB of JSON out", "µs per request"),
    "paced": ("300 streams, a chunk every 20 ms", "µs per chunk"),
}
ORDER = ("nginx", "wire", "edge", "tensorzero", "litellm")

STYLE = """
  text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: #1f2733; }
  .title { font-size: 19px; font-weight: 650; } .panel { font-size: 14px; font-weight: 600; }
  .quiet, .tick { fill: #66707d; } .tick { font-size: 11px; } .value { font-variant-numeric: tabular-nums; }
  .strong { font-weight: 650; }
  .ground { fill: #ffffff; stroke: #d9dee5; } .line { stroke: #e6eaef; }
  .nginx { fill: #9aa5b1; } .wire { fill: #8fb8f6; } .edge { fill: #2463d8; } .tensorzero, .litellm { fill: #e0a458; }
  .service { fill: #5f8fe6; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6eaf0; } .quiet, .tick { fill: #97a3b2; }
    .ground { fill: #12171e; stroke: #2b333e; } .line { stroke: #262e38; }
    .nginx { fill: #6b7684; } .wire { fill: #44699f; } .edge { fill: #5b9bff; } .tensorzero, .litellm { fill: #b97f35; }
    .service { fill: #4a78c4; }
  }
"""

Row = tuple[str, str, float]
"""Class, words, value."""


def decades(values: Iterable[float]) -> int:
    """The power of ten above all of them."""
    return max(1, math.ceil(math.log10(max(values))))


def bars(rows: list[Row], x: float, y: float, width: float, scale: "Scale") -> Iterator[str]:
    """One below the other; the words left of them, the value behind each."""
    for place, (kind, words, value) in enumerate(rows):
        top, length = y + place * STEP, max(2.0, scale.at(value) * width)
        strong = " strong" if kind == "edge" else ""
        yield f'<text class="{strong.strip()}" x="{x - 10:.1f}" y="{top + 12.5:.1f}" text-anchor="end">{escape(words)}</text>'
        yield f'<rect class="{kind}" x="{x:.1f}" y="{top}" width="{length:.1f}" height="{BAR}" rx="3"/>'
        text = number(value, "").strip()
        yield f'<text class="value{strong}" x="{x + length + 7:.1f}" y="{top + 12.5:.1f}">{text}</text>'


def short(tick: int) -> str:
    return f"{tick // 1000}k" if tick >= 1000 else str(tick)


class Scale:
    """Where a value ends, as a share of the width: in `powers` of ten from 1 up, or evenly from nothing to `most`."""

    def __init__(self, *, powers: int = 0, most: float = 0.0) -> None:
        self._powers, self._most = powers, most

    def at(self, value: float) -> float:
        return math.log10(max(1.0, value)) / self._powers if self._powers else value / self._most

    def ticks(self) -> list[int]:
        return [10**power for power in range(self._powers + 1)] if self._powers else []


def panel(title: str, unit: str, rows: list[Row], x: float, y: float, width: float, scale: Scale) -> Iterator[str]:
    """width: of all of it, words and values too."""
    left, room, below = x + LABEL, width - LABEL - VALUE, y + 24 + len(rows) * STEP
    yield f'<text class="panel" x="{x}" y="{y}">{escape(title)}</text>'
    yield f'<text class="tick" x="{x + width}" y="{y}" text-anchor="end">{escape(unit)}</text>'
    for tick in scale.ticks():
        at = left + scale.at(tick) * room
        yield f'<line class="line" x1="{at:.1f}" x2="{at:.1f}" y1="{y + 12}" y2="{below - 6}"/>'
        yield f'<text class="tick" x="{at:.1f}" y="{below + 8}" text-anchor="middle">{short(tick)}</text>'
    yield from bars(rows, left, y + 18, room, scale)


def gateways(figures: dict[str, Figure], case: str) -> list[Row]:
    present = [name for name in ORDER if f"{case}.{name}" in figures]
    return [(name, NAMES[name], figures[f"{case}.{name}"].value) for name in present]


def processes(figures: dict[str, Figure]) -> list[Row]:
    """The dearest first."""
    found = [figure for name, figure in figures.items() if name.startswith("all.") and figure.value >= 1]
    ordered = sorted(found, key=lambda figure: -figure.value)
    return [("edge" if figure.title == "edge" else "service", figure.title, figure.value) for figure in ordered]


def panels(result: Result) -> Iterator[tuple[str, str, list[Row], Scale]]:
    """Title, unit, bars, scale: one scale for all gateways, so that panels can be compared too."""
    figures = {figure.name: figure for figure in result.figures}
    cases = {case: rows for case in CASES if (rows := gateways(figures, case))}
    if cases:
        scale = Scale(powers=decades(value for rows in cases.values() for _, _, value in rows))
        yield from ((*CASES[case], rows, scale) for case, rows in cases.items())
    if services := processes(figures):
        together = sum(value for _, _, value in services)
        even = Scale(most=max(value for _, _, value in services))
        yield f"All processes: {together:,.0f} µs", "75 kB case, µs per request", services, even


def draw(result: Result) -> str:
    """Two panels beside each other."""
    width, parts, top, deepest = (WIDTH - 2 * MARGIN - GUTTER) / 2, list[str](), 104, 104
    for place, (title, unit, rows, scale) in enumerate(panels(result)):
        if place % 2 == 0 and place:
            top = deepest
        x = MARGIN + (place % 2) * (width + GUTTER)
        parts += panel(title, unit, rows, x, top, width, scale)
        deepest = max(deepest, top + 24 + len(rows) * STEP + 46)
    return _document(parts, deepest - 30, result)


def _document(parts: list[str], height: float, result: Result) -> str:
    about = f"{result.machine['cores']} cores of {result.machine['model']}, {result.at[:10]}, commit {result.commit}"
    title = "CPU that the gateway process takes"
    lines = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{title}">',
        f"<style>{STYLE}</style>",
        f'<rect class="ground" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1:.0f}" rx="10"/>',
        f'<text class="title" x="{MARGIN}" y="42">{title}</text>',
        f'<text class="quiet" x="{MARGIN}" y="64">Median of the rounds of one run, {escape(about)}. Scales are logarithmic, '
        "but for the last.</text>",
        *parts,
        "</svg>",
    )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.chart", description=__doc__)
    parser.add_argument("result", type=Path)
    parser.add_argument("svg", type=Path, nargs="?", default=PICTURE)
    args = parser.parse_args()
    args.svg.write_text(draw(read(args.result)))


if __name__ == "__main__":
    main()
