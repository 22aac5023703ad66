"""What a run leaves: measurements round by round, and the figures made of them. Written as JSON, read by `compare` and `chart`."""

from pathlib import Path

import msgspec

FOLDER = Path(__file__).with_name("results")


class Measured(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One gateway in one round of one case.

    cpu_us: of the gateway alone for each unit of the case. by_process: the same for everything that works beside it, the
    gateway included, until all of it has come to rest. load_cpu_us: what the load itself took, per request.
    """

    requests: int
    seconds: float
    errors: int = 0
    first_error: str = ""
    cpu_us: float = 0
    by_process: dict[str, float] = {}
    at_rest: bool = True
    p50_ms: float = 0
    p99_ms: float = 0
    ttfb_p50_ms: float = 0
    ttfb_p99_ms: float = 0
    load_cpu_us: float = 0


class Held(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Streams held open through one gateway. resident: of the gateway, before and with them, in bytes."""

    streams: int
    whole: int
    chunks: int
    delay_p50_ms: float
    delay_p99_ms: float
    delay_most_ms: float
    resident_before: int
    resident_open: int
    opened_in_seconds: float

    @property
    def kb_per_stream(self) -> float:
        """kB of 1,000 bytes; memory that was free within the process before is not in it."""
        return (self.resident_open - self.resident_before) / self.streams / 1000


class CaseResult(msgspec.Struct, kw_only=True, omit_defaults=True):
    """rounds: gateway to measurement, one for each round; rivals are measured in the first ones only.

    failed: who could not serve the case, and how it failed.
    """

    what: str
    unit: str
    rounds: list[dict[str, Measured]] = []
    held: dict[str, Held] = {}
    failed: dict[str, str] = {}


class Figure(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One of the figures promised. low, high: of the rounds. goal: 0 is none; `at_least` says which way it goes."""

    name: str
    title: str
    unit: str
    value: float
    low: float
    high: float
    goal: float = 0
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        if not self.goal:
            return None
        return self.value >= self.goal if self.at_least else self.value <= self.goal


class Result(msgspec.Struct, kw_only=True):
    """at: UTC. gateways: what each is and how it was called. absent: who could not be measured, and why."""

    at: str
    commit: str
    changed: bool
    seconds: float
    options: dict[str, float]
    machine: dict[str, str | int | float]
    versions: dict[str, str]
    accounting: str
    gateways: dict[str, str]
    absent: dict[str, str]
    cases: dict[str, CaseResult]
    idle_cpu_us_per_second: dict[str, float]
    rest_mb: dict[str, float]
    after_mb: dict[str, float]
    soaked_mb: float | None = None
    figures: list[Figure] = []


def read(path: Path) -> Result:
    return msgspec.json.decode(path.read_bytes(), type=Result)


def write(path: Path, result: Result) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
