"""Figures as people read them: lines on a terminal, tables in the docs. The docs' tables are made here and never by hand."""

from collections.abc import Iterable

from tests.bench.results import Figure, Result

NAMES = {
    "direct": "no gateway",
    "nginx": "nginx",
    "wire": "edge, governance off",
    "edge": "edge, everything on",
    "asked": "edge, budget asked each time",
    "tensorzero": "TensorZero",
    "litellm": "LiteLLM",
}
CPU_CASES = ("stream", "json", "paced")


def number(value: float, unit: str) -> str:
    """Two or three digits that mean something."""
    if unit == "×":
        return f"{value:.2f}×" if value < 10 else f"{value:,.0f}×"
    if unit == "ms":
        return f"{value:.2f} ms"
    return f"{value:,.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"


def goal(figure: Figure) -> str:
    if not figure.goal:
        return ""
    sign = "≥" if figure.at_least else "≤"
    text = f"{figure.goal:g}" + ("×" if figure.unit == "×" else f" {figure.unit}")
    return f"{sign} {text}"


def verdict(figure: Figure) -> str:
    return {True: "met", False: "not met", None: ""}[figure.met]


def spread(figure: Figure) -> str:
    """Without the unit, which stands beside the median; empty for a single round."""
    if figure.low == figure.high:
        return ""
    unit = figure.unit if figure.unit in ("×", "ms") else ""
    return " – ".join(number(value, unit).removesuffix(unit).strip() for value in (figure.low, figure.high))


def lines(figures: Iterable[Figure]) -> Iterable[str]:
    """For a terminal."""
    for figure in figures:
        yield (
            f"{figure.name:<26} {number(figure.value, figure.unit):>18}  {spread(figure):<18} "
            f"{goal(figure):<10} {verdict(figure)}"
        ).rstrip()


def goals(result: Result) -> str:
    """The table of what was promised."""
    rows = ["| | goal | measured | rounds | |", "|---|---|---|---|---|"]
    for figure in result.figures:
        if figure.goal:
            case = figure.name.partition(".")[0]
            what = f"{result.cases[case].what}: {figure.title}" if case in CPU_CASES else figure.title
            rows.append(
                f"| {what} | {goal(figure)} | {number(figure.value, figure.unit)} | {spread(figure)} | {verdict(figure)} |"
            )
    return "\n".join(rows)


def cpu(result: Result) -> str:
    """What each gateway takes."""
    cases = [name for name in CPU_CASES if name in result.cases]
    values = {figure.name: figure for figure in result.figures}
    rows = ["| CPU of the gateway | " + " | ".join(result.cases[name].what for name in cases) + " |"]
    rows.append("|---|" + "---|" * len(cases))
    for gateway in (name for name in NAMES if name in result.gateways and name != "direct"):
        cells = (cell(values.get(f"{case}.{gateway}")) for case in cases)
        rows.append(f"| {NAMES[gateway]} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def cell(figure: Figure | None) -> str:
    return number(figure.value, figure.unit.replace(" per ", " / ")) if figure else "–"


def processes(result: Result) -> str:
    """Who takes what of a request in the 75 kB case, the dearest first."""
    found = sorted((f for f in result.figures if f.name.startswith("all.")), key=lambda figure: -figure.value)
    rows = ["| process | CPU per request | at rest, per second |", "|---|---|---|"]
    for figure in found:
        idle = result.idle_cpu_us_per_second.get(figure.title, 0)
        rows.append(f"| {figure.title} | {number(figure.value, 'µs')} | {idle / 1000:.1f} ms |")
    rows.append(f"| together | {number(sum(figure.value for figure in found), 'µs')} | |")
    return "\n".join(rows)


def first_byte(result: Result) -> str:
    """What each gateway adds, where nobody else asks."""
    rows = ["| added time to first byte, one client | p50 | p99 |", "|---|---|---|"]
    values = {figure.name: figure for figure in result.figures}
    for gateway in (name for name in NAMES if f"first_byte.{name}.p50" in values):
        cells = (number(values[f"first_byte.{gateway}.{share}"].value, "ms") for share in ("p50", "p99"))
        rows.append(f"| {NAMES[gateway]} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def held(result: Result) -> str:
    """The open streams, beside what the bench itself adds."""
    rows = ["| | memory per stream | delay of a chunk, p50 | p99 | most |", "|---|---|---|---|---|"]
    case = result.cases.get("open")
    for name, found in case.held.items() if case else ():
        memory = "" if name == "direct" else f"{found.kb_per_stream:.1f} kB"
        delays = " | ".join(
            f"{value:.2f} ms" for value in (found.delay_p50_ms, found.delay_p99_ms, found.delay_most_ms)
        )
        rows.append(f"| {NAMES[name]} | {memory} | {delays} |")
    return "\n".join(rows)


def where(result: Result) -> str:
    """One paragraph: when, on what, of what."""
    machine, versions = result.machine, ", ".join(f"{name} {version}" for name, version in result.versions.items())
    absent = "".join(f" Not measured: {NAMES[name]} ({reason})." for name, reason in result.absent.items())
    changed = " with changes that are not committed" if result.changed else ""
    return (
        f"Measured {result.at[:10]} at commit {result.commit}{changed}, on {machine['cores']} cores of {machine['model']}, "
        f"{machine['memory_gb']:.0f} GB, {machine['kernel']}, load average {machine['load_average']} before, "
        f"ledger on {machine['filesystem']}; {versions}.{absent}"
    )


def called(result: Result) -> str:
    """What exactly was measured of each."""
    rows = ["| | what was called |", "|---|---|"]
    rows += [f"| {NAMES[name]} | {result.gateways[name]} |" for name in NAMES if name in result.gateways]
    return "\n".join(rows)


TABLES = {
    "goals": goals,
    "cpu": cpu,
    "processes": processes,
    "first_byte": first_byte,
    "open": held,
    "where": where,
    "called": called,
}
