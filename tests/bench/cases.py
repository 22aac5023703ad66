"""The cases: what each sends, and how one gateway is measured in it."""

import subprocess
import sys
import time
from collections.abc import Iterator

import msgspec

from tests.bench import load, open_load
from tests.bench.accounting import resident_bytes, settle, spent, used
from tests.bench.processes import MODULE, Gateway, Provider, process, say_to, told
from tests.bench.requests import SIZES
from tests.bench.results import CaseResult, Held, Measured

ACCOUNTING = "CLOCK_PROCESS_CPUTIME_ID of each process: user and system time of all its threads, in ns"
CHUNKS, CHUNK_MS = 50, 20
HELD_MS = 1000
WARM_SECONDS = 0.5
RIVALS = frozenset({"tensorzero", "litellm"})
SELDOM = frozenset({"asked"})
"""Only where a case names it."""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """mode: of the provider. units: into which one request's CPU is divided. seconds: times the option's.

    only: who takes part; empty: all but the seldom ones. also: of these, who does.
    """

    what: str
    unit: str
    mode: str
    streams: bool
    size: int
    clients: int
    units: int = 1
    spread: float = 0.0
    seconds: float = 1.0
    most_rounds: int = 99
    rival_rounds: int = 3
    only: tuple[str, ...] = ()
    also: tuple[str, ...] = ()

    def concerns(self, gateway: str) -> bool:
        return gateway in self.only if self.only else gateway not in SELDOM or gateway in self.also


CASES = {
    "json": Case(
        what="1 kB body, 1 kB JSON answer, 32 clients",
        unit="request",
        mode="json",
        streams=False,
        size=SIZES["1kB"],
        clients=32,
    ),
    "stream": Case(
        what="75 kB body, 200-event stream in a burst, 32 clients",
        unit="request",
        mode="burst",
        streams=True,
        size=SIZES["75kB"],
        clients=32,
        also=("asked",),
    ),
    "paced": Case(
        what="1 kB body, 300 streams of 50 chunks, one every 20 ms",
        unit="chunk",
        mode=f"paced {CHUNKS} {CHUNK_MS}",
        streams=True,
        size=SIZES["1kB"],
        clients=300,
        units=CHUNKS,
        spread=1.0,
        most_rounds=3,
        rival_rounds=1,
    ),
    "first_byte": Case(
        what="75 kB body, 200-event stream, one client: time to the first byte of the answer's body",
        unit="request",
        mode="burst",
        streams=True,
        size=SIZES["75kB"],
        clients=1,
        only=("direct", "nginx", "wire", "edge", "asked"),
    ),
}
OPEN = "open"
NAMES = (OPEN, *CASES)
"""The open streams come first: memory is measured in processes that have not served much yet."""


def one_load(case: Case, gateway: Gateway, seconds: float) -> load.Seen:
    plan = load.Plan(
        port=gateway.port,
        shape=gateway.shape,
        key=gateway.key,
        streams=case.streams,
        size=case.size,
        clients=case.clients,
        seconds=seconds,
        spread=case.spread,
    )
    command = [*MODULE, "tests.bench.load", msgspec.json.encode(plan).decode()]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=seconds + case.spread + 180)
    return msgspec.json.decode(done.stdout, type=load.Seen)


def measure(case: Case, gateway: Gateway, seconds: float) -> Measured:
    """What one gateway takes for this load, from rest to rest."""
    settle(gateway.processes())
    before = used(gateway.processes())
    seen = one_load(case, gateway, seconds)
    at_rest = settle(gateway.processes())
    processes = gateway.processes()
    taken = spent(processes, before, used(processes))
    units = max(1, seen.requests) * case.units
    by_process = {name: round(ns / 1000 / units, 2) for name, ns in taken.items()}
    facts = msgspec.structs.asdict(seen)
    return Measured(cpu_us=by_process[next(iter(processes))], by_process=by_process, at_rest=at_rest, **facts)


def order(names: list[str], number: int) -> list[str]:
    """There and back: what drifts in the machine hits all alike."""
    return names if number % 2 == 0 else names[::-1]


def run(case: Case, gateways: dict[str, Gateway], provider: Provider, rounds: int, seconds: float) -> CaseResult:
    """Round after round, all gateways in each."""
    provider.answer(case.mode)
    names = [name for name in gateways if case.concerns(name)]
    result = CaseResult(what=case.what, unit=case.unit)
    for number in range(min(rounds, case.most_rounds)):
        taking_part = [name for name in names if name not in RIVALS or number < case.rival_rounds]
        measured = {}
        for name in order(taking_part, number):
            if number == 0:
                one_load(case, gateways[name], min(WARM_SECONDS, seconds))
            measured[name] = measure(case, gateways[name], seconds * case.seconds)
            say(f"  {name:<10} {told_briefly(measured[name], case)}")
        result.rounds.append(measured)
    return result


def told_briefly(measured: Measured, case: Case) -> str:
    bad = f", {measured.errors} errors: {measured.first_error[:200]}" if measured.errors else ""
    busy = "" if measured.at_rest else ", did not come to rest"
    return (
        f"{measured.cpu_us:>9.1f} µs per {case.unit}, {measured.requests} requests, "
        f"first byte p50 {measured.ttfb_p50_ms} p99 {measured.ttfb_p99_ms} ms{busy}{bad}"
    )


def beside(gateway: Gateway) -> dict[str, list[int]]:
    """All that works for the gateway but itself."""
    processes = gateway.processes()
    return {name: pids for name, pids in processes.items() if name != next(iter(processes))}


def resident(gateway: Gateway) -> int:
    """Of the gateway alone, in bytes."""
    name, pids = next(iter(gateway.processes().items()))
    return sum(resident_bytes(pid) for pid in pids) if name else 0


def held(gateways: dict[str, Gateway], provider: Provider, streams: int, seconds: float) -> CaseResult:
    """Open streams, one chunk a second each, through one gateway after the other."""
    what = f"{streams:,} streams held open through one process, a chunk a second each, 1 kB body"
    result = CaseResult(what=what, unit="stream")
    for name in ("direct", "nginx", "wire", "edge"):
        if name not in gateways:
            continue
        try:
            found = result.held[name] = hold(gateways[name], provider, streams, seconds)
        except RuntimeError as error:
            result.failed[name] = str(error)
            say(f"  {name:<10} failed: {error}")
        else:
            say(
                f"  {name:<10} {found.kb_per_stream:>7.1f} kB per stream, p99 {found.delay_p99_ms} ms, {found.whole} whole"
            )
    return result


def hold(gateway: Gateway, provider: Provider, streams: int, seconds: float) -> Held:
    """Until told to end, so that all of them end well."""
    provider.answer("json")
    one_load(CASES["json"], gateway, min(WARM_SECONDS, seconds))  # what is loaded once is no stream's
    settle(gateway.processes())
    provider.answer(f"paced 1000000 {HELD_MS}")
    plan = open_load.Plan(
        port=gateway.port, shape=gateway.shape, key=gateway.key, size=SIZES["1kB"], streams=streams, seconds=seconds
    )
    before, began = resident(gateway), time.monotonic()
    with process(*MODULE, "tests.bench.open_load", msgspec.json.encode(plan).decode()) as running:
        held_open = msgspec.json.decode(told(running), type=dict[str, int])["open"]
        opened = time.monotonic() - began
        if held_open < streams:
            raise RuntimeError(f"{streams - held_open:,} of {streams:,} streams were refused or broken off")
        settle(beside(gateway))  # the books of so many beginnings are another case
        say_to(running, "go")
        late = msgspec.json.decode(told(running), type=open_load.Late)
        during = resident(gateway)
        provider.answer("end")
        whole = msgspec.json.decode(told(running), type=dict[str, int])["whole"]
        if whole < streams:
            raise RuntimeError(f"{streams - whole:,} of {streams:,} streams did not end well")
    settle(gateway.processes())
    return Held(
        streams=streams,
        whole=whole,
        chunks=late.chunks,
        delay_p50_ms=late.p50_ms,
        delay_p99_ms=late.p99_ms,
        delay_most_ms=late.most_ms,
        resident_before=before,
        resident_open=during,
        opened_in_seconds=round(opened, 1),
    )


def idle(gateway: Gateway, seconds: float) -> dict[str, float]:
    """CPU µs a second that each process takes when nothing is asked."""
    before = used(gateway.processes())
    time.sleep(seconds)
    processes = gateway.processes()
    return {name: round(ns / 1000 / seconds, 1) for name, ns in spent(processes, before, used(processes)).items()}


def memory(gateway: Gateway) -> dict[str, float]:
    """MB of 10^6 bytes resident, by process."""
    return {
        name: round(sum(resident_bytes(pid) for pid in pids) / 1e6, 1) for name, pids in gateway.processes().items()
    }


def say(line: str) -> None:
    """Progress is for people: the result alone goes to standard output."""
    sys.stderr.write(line + "\n")


def chosen(names: str) -> Iterator[str]:
    """Of `--cases`; in our order. Raises SystemExit naming what there is."""
    wanted = set(names.split(",")) if names else set(NAMES)
    if unknown := wanted - set(NAMES):
        raise SystemExit(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    return (name for name in NAMES if name in wanted)
