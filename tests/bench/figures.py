"""The figures promised, out of what was measured. Ratios are taken within a round, so that the machine's drift cancels out."""

from collections.abc import Callable, Iterator
from statistics import median

from tests.bench.results import Figure, Measured, Result

Round = dict[str, Measured]
Value = Callable[[Round], float]


def cpu(name: str) -> Value:
    return lambda measured: measured[name].cpu_us


def everything(measured: Round) -> float:
    """All processes behind the edge, and the edge."""
    return sum(measured["edge"].by_process.values())


def of_rounds(name: str, title: str, unit: str, values: list[float], goal: float = 0, least: bool = False) -> Figure:
    """Median, lowest and highest."""
    digits = 3 if unit in ("ms", "×") else 1
    value, low, high = (round(of(values), digits) for of in (median, min, max))
    return Figure(name=name, title=title, unit=unit, value=value, low=low, high=high, goal=goal, at_least=least)


def ratio(above: Value, below: Value) -> Value:
    return lambda measured: above(measured) / below(measured)


def added(gateway: str, field: str) -> Value:
    """To direct, in ms."""
    return lambda measured: float(getattr(measured[gateway], field) - getattr(measured["direct"], field))


RATIOS: list[tuple[str, str, str, Value, Value, float, bool]] = [
    ("stream", "edge_to_nginx", "edge to nginx", cpu("edge"), cpu("nginx"), 2.5, False),
    ("stream", "wire_to_nginx", "governance off, to nginx", cpu("wire"), cpu("nginx"), 1.2, False),
    ("stream", "tensorzero_to_edge", "TensorZero to edge", cpu("tensorzero"), cpu("edge"), 10, True),
    ("stream", "litellm_to_edge", "LiteLLM to edge", cpu("litellm"), cpu("edge"), 100, True),
    ("stream", "all_to_nginx", "all processes together, to nginx", everything, cpu("nginx"), 10, False),
    ("json", "edge_to_nginx", "edge to nginx", cpu("edge"), cpu("nginx"), 6, False),
    ("json", "tensorzero_to_edge", "TensorZero to edge", cpu("tensorzero"), cpu("edge"), 3, True),
    ("paced", "edge_to_nginx", "edge to nginx", cpu("edge"), cpu("nginx"), 1.3, False),
]
"""Case, name, title, what is divided by what, goal, whether it must be at least that."""


def figures(result: Result) -> list[Figure]:
    """Those that this run has measured, in the order of the docs."""
    return [*_cpu(result), *_ratios(result), *_first_byte(result), *_open(result), *_memory(result)]


def _cpu(result: Result) -> Iterator[Figure]:
    """No goals: what the ratios are made of."""
    for name, case in result.cases.items():
        for gateway in case.rounds[0] if case.rounds and name != "first_byte" else ():
            values = [measured[gateway].cpu_us for measured in case.rounds if gateway in measured]
            yield of_rounds(f"{name}.{gateway}", f"{gateway}", f"µs per {case.unit}", values)
    if stream := result.cases.get("stream"):
        for process in stream.rounds[0]["edge"].by_process:
            values = [measured["edge"].by_process.get(process, 0) for measured in stream.rounds]
            yield of_rounds(f"all.{process}", process, "µs per request", values)


def _ratios(result: Result) -> Iterator[Figure]:
    for case, name, title, above, below, goal, least in RATIOS:
        values = []
        for measured in result.cases[case].rounds if case in result.cases else ():
            try:
                values.append(ratio(above, below)(measured))
            except KeyError:  # who is not there, or not in every round
                continue
        if values:
            yield of_rounds(f"{case}.{name}", title, "×", values, goal, least)


def _first_byte(result: Result) -> Iterator[Figure]:
    case = result.cases.get("first_byte")
    if case is None:
        return
    for share, goal in (("p50", 1.0), ("p99", 5.0)):
        field, title = f"ttfb_{share}_ms", f"added time to first byte, {share}"
        for gateway in (name for name in case.rounds[0] if name != "direct"):
            values = [added(gateway, field)(measured) for measured in case.rounds]
            if gateway == "edge":
                yield of_rounds(f"first_byte.{share}", title, "ms", values, goal)
            yield of_rounds(f"first_byte.{gateway}.{share}", f"{gateway}: {title}", "ms", values)


def _open(result: Result) -> Iterator[Figure]:
    case = result.cases.get("open")
    for name, found in case.held.items() if case else ():
        if name != "direct":
            goal = 40.0 if name == "edge" else 0
            yield of_rounds(f"open.{name}.memory", f"{name}: memory per stream", "kB", [found.kb_per_stream], goal)
        late = found.delay_p99_ms
        goal = 20.0 if name == "edge" else 0
        yield of_rounds(f"open.{name}.delay", f"{name}: delay of a chunk, p99", "ms", [late], goal)


def _memory(result: Result) -> Iterator[Figure]:
    yield of_rounds("memory.rest", "memory of a worker at rest", "MB", [result.rest_mb["edge"]], 100)
    yield of_rounds("memory.after", "the same after this run", "MB", [result.after_mb["edge"]])
    if result.soaked_mb is not None:
        yield of_rounds("memory.soaked", "the same after ten minutes of soak", "MB", [result.soaked_mb], 150)
