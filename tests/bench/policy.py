"""What the ledger's policy makes of a workload: the real core of budget, played on a virtual clock.

`python -m tests.bench.policy` prints the figures that docs/ledger.md compares. Clients, provider and edge are played here;
who gets in, who waits, what is held and what a stream may still make is decided by the core alone.
"""

import heapq
import json
import math
import random
import sys
from collections.abc import Callable, Generator
from itertools import count

import msgspec

from shared.contracts.budget import Bound, Cut, Denied, Extend, Granted, Queued, TrueUp
from shared.contracts.config import BudgetRule, Entity, Key
from shared.contracts.edge import Line
from shared.contracts.pricing import PricedLine
from tests.fixtures import budget as make
from tests.fixtures.budget import SECOND, USD, Desk

RATE = 80  # output tokens a second
USD_PER_TOKEN = 10_000  # nano-USD of output in the round price book
INPUT_TOKENS = 50_000
READ_SHARE = (
    0.1  # of the input hold is what a cached prompt costs in the end: the round book has one rate for all classes
)
IN_HAND_SECONDS = 10
ASK_SECONDS = 30
LEAST_ASKED = 1_024
MARGIN_TOKENS = 64
TRUE_UP_SECONDS = 1.0

Script = Generator[float, None, None]


class Figures(msgspec.Struct):
    """Money in nano-USD. made: what the provider has produced, whoever paid attention."""

    calls: int = 0
    completed: int = 0
    cut: int = 0
    denied: int = 0
    made_nano_usd: int = 0
    cut_nano_usd: int = 0
    first_refusal_nano_usd: int = -1
    longest_wait: dict[str, float] = {}


class World:
    """A clock, clients as generators that yield the seconds they sleep, and the desk they all stand before."""

    def __init__(self, entities: list[Entity], budget_id: str, limit_nano_usd: int) -> None:
        self.desk = Desk(entities)
        self.budget_id, self.limit = budget_id, limit_nano_usd
        self.figures = Figures()
        self._agenda: list[tuple[float, int, Script]] = []
        self._numbers = count()
        self._now = 0.0
        self._waiting: dict[tuple[str, int], Granted | Denied] = {}

    @property
    def now(self) -> float:
        return self._now

    def start(self, script: Script, after: float = 0.0) -> None:
        heapq.heappush(self._agenda, (self._now + after, next(self._numbers), script))

    def run(self, until: float = math.inf) -> None:
        self.start(self._tick())
        began = self.desk.now
        while self._agenda and self._agenda[0][0] <= until and (len(self._agenda) > 1 or self.desk.line):
            self._now, _, script = heapq.heappop(self._agenda)
            self.desk.now = began + int(self._now * SECOND)
            pause = next(script, None)
            if pause is not None:
                self.start(script, pause)

    def _tick(self) -> Script:
        while True:
            self.desk.tick()
            yield 1.0

    def late(self, rid: str, n: int = 0) -> Granted | Denied | None:
        for late in self.desk.late:
            self._waiting[late.rid, late.n] = late.answer
        self.desk.late.clear()
        return self._waiting.pop((rid, n), None)

    def spent(self) -> int:
        return self.desk.booked(self.budget_id)[0]

    def refused(self) -> None:
        self.figures.denied += 1
        if self.figures.first_refusal_nano_usd < 0:
            self.figures.first_refusal_nano_usd = self.spent()


class Call(msgspec.Struct):
    """One request of a client. output: tokens it makes if nobody stops it."""

    key: str
    output: int
    max_tokens: int
    stream: bool = True
    input_tokens: int = INPUT_TOKENS
    seconds: float = 0.0  # that it takes; 0: at the usual rate


def serve(world: World, call: Call, rid: str, ended: Callable[[str], None] = lambda how: None) -> Script:
    """From RESERVE to the close, as an edge does it; `ended` hears ok, cut, or the reason of a refusal."""
    desk, figures = world.desk, world.figures
    figures.calls += 1
    came = world.now
    bound = (Bound(meter="input_tokens", quantity=call.input_tokens),)
    ask = make.ask(rid, call.key, max_tokens=call.max_tokens, stream=call.stream, bounds=bound)
    answer = desk.do(ask)
    while isinstance(answer, Queued):
        yield 0.05
        answer = world.late(rid) or answer
    waited = world.now - came
    figures.longest_wait[call.key] = max(figures.longest_wait.get(call.key, 0.0), waited)
    if not isinstance(answer, Granted):
        assert isinstance(answer, Denied)
        world.refused()
        ended(answer.reason)
        return
    made, how = yield from _answer(world, call, rid, answer)
    _close(world, call, rid, made, how)
    ended(how)


def _answer(world: World, call: Call, rid: str, granted: Granted) -> Generator[float, None, tuple[int, str]]:
    rate = call.output / call.seconds if call.seconds else RATE
    seconds = call.output / rate
    if not call.stream:
        yield seconds
        return call.output, "ok"
    yield TRUE_UP_SECONDS
    read = max(1, int(call.input_tokens * READ_SHARE))
    world.desk.do(TrueUp(rid=rid, input_tokens=read, nano_usd=0))
    began, most, n, asked = world.now, granted.held_output_tokens, 0, False
    while True:
        made = min(call.output, int((world.now - began) * rate))
        if made >= call.output:
            return call.output, "ok"
        if asked and (late := world.late(rid, n)):
            most += late.held_output_tokens if isinstance(late, Granted) else 0
            asked = isinstance(late, Denied)
        if not asked and most < call.max_tokens and made + IN_HAND_SECONDS * rate > most:
            n += 1
            more = min(call.max_tokens - most, max(LEAST_ASKED, int(ASK_SECONDS * rate)))
            found = world.desk.do(Extend(rid=rid, n=n, output_tokens=more))
            asked = not isinstance(found, Granted)
            most += found.held_output_tokens if isinstance(found, Granted) else 0
        if made >= most - MARGIN_TOKENS and most < call.max_tokens:
            return made, "cut"
        yield 0.1 if most - made < 2 * rate or asked else min(2.0, max(0.1, (call.output - made) / rate))


def _close(world: World, call: Call, rid: str, made: int, how: str) -> None:
    figures = world.figures
    read = max(1, int(call.input_tokens * READ_SHARE)) if call.stream else call.input_tokens
    nano_usd = read * 1_000 + made * USD_PER_TOKEN
    figures.made_nano_usd += nano_usd
    if how == "cut":
        figures.cut += 1
        figures.cut_nano_usd += nano_usd
        world.desk.do(Cut(rid=rid, budget_id=world.budget_id, principal=make.PRINCIPAL, session=rid))
    else:
        figures.completed += 1
    lines = tuple(
        PricedLine(
            line=Line(meter=meter, quantity=quantity, model=make.MODEL),
            rate_id="round",
            list_pico_usd=0,
            cost_pico_usd=0,
            charge_pico_usd=0,
        )
        for meter, quantity in (("cache_read", read), ("output", made))
    )
    priced = make.usage(rid, "settled", nano_usd, call.key, (), outcome=how, estimated=how == "cut")
    world.desk.close(msgspec.structs.replace(priced, lines=lines))


def usual(rng: random.Random, most: int) -> int:
    """An agent's turns: most are short, some are long."""
    return min(most, max(5, int(rng.lognormvariate(math.log(700), 1.1))))


def teach(world: World, rng: random.Random, calls: int, most: int) -> None:
    """So many ordinary calls that cost nothing the budget in question minds."""
    for n in range(calls):
        output = usual(rng, most)
        rid = f"taught{n}"
        world.desk.now += SECOND
        bound = (Bound(meter="input_tokens", quantity=10),)
        world.desk.grant(make.ask(rid, "key", max_tokens=most, bounds=bound))
        line = PricedLine(
            line=Line(meter="output", quantity=output, model=make.MODEL),
            rate_id="round",
            list_pico_usd=0,
            cost_pico_usd=0,
            charge_pico_usd=0,
        )
        world.desk.close(msgspec.structs.replace(make.usage(rid, "settled", 0), lines=(line,)))


def organisation(limit_usd: float, keys: int = 0, **more: object) -> list[Entity]:
    """The capped team; further keys beside the usual two."""
    entities = make.organisation(team=[capped(limit_usd, **more)], key=[make.rule("key", 1e6)])
    return [*entities, *(Key(uid=f"k{n}", org="org", customer="cus", team="team", id=f"k{n}") for n in range(keys))]


def capped(limit_usd: float, **more: object) -> BudgetRule:
    return make.rule("team", limit_usd, "month", "", **more)


def mix(most: int = 32_000, limit_usd: float = 250, clients: int = 200, sudden: bool = False, seed: int = 1) -> World:
    """Clients that ask one call after the other until the budget is spent."""
    world = World(organisation(limit_usd), "team:team:month", round(limit_usd * USD))
    rng, numbers = random.Random(seed), count()  # a simulation, from a seed
    teach(world, rng, 1_000, most)

    def client() -> Script:
        while True:
            heard: list[str] = []
            output = most if sudden else usual(rng, most)
            yield from serve(world, Call("key", output, most), f"m{next(numbers)}", heard.append)
            if heard[0] == "spent":
                return
            yield rng.uniform(1, 5) if heard[0] == "busy" else rng.uniform(0.05, 0.5)

    for _ in range(clients):
        world.start(client(), rng.uniform(0, 5))
    world.run()
    return world


def race(stream: bool, warm: bool, calls: int = 50, limit_usd: float = 5, tiers: bool = False) -> World:
    """So many calls of $0.50 and 2 s at once; tiers: below an org, a customer and a key that have more."""
    entities = organisation(limit_usd)
    if tiers:
        more = [make.rule("org", 1_000)], [make.rule("customer", 100)], [make.rule("key", 50)]
        entities = make.organisation(org=more[0], customer=more[1], team=[capped(limit_usd)], key=more[2])
    world = World(entities, "team:team:month", round(limit_usd * USD))
    if warm:
        teach(world, random.Random(1), 1_000, 60_000)  # a simulation, from a seed
    for n in range(calls):
        call = Call("key", 49_900, 49_900, stream, 1_000, 2.0)
        world.start(serve(world, call, f"r{n}"))
    world.run()
    return world


def greedy(crowd: int, modest: int = 10, limit_usd: float = 0.5) -> float:
    """The longest wait of modest keys, in seconds, beside one that sends `crowd` requests at once; all need 1 s of a slot."""
    world = World(organisation(limit_usd, keys=modest, queue_seconds=600), "team:team:month", round(limit_usd * USD))
    numbers = count()

    def client(key: str, turns: int) -> Script:
        for _ in range(turns):
            yield from serve(world, Call(key, 1, 4_900, False, 1_000, 1.0), f"g{next(numbers)}")

    for _ in range(crowd):
        world.start(client("key2", 1))
    for n in range(modest):
        world.start(client(f"k{n}", 5), 0.5)
    world.run()
    return max(world.figures.longest_wait[f"k{n}"] for n in range(modest))


def told(name: str, world: World) -> dict[str, object]:
    figures, limit = world.figures, world.limit
    spent = world.spent()
    return {
        "case": name,
        "calls": figures.calls,
        "completed": figures.completed,
        "cut": figures.cut,
        "denied": figures.denied,
        "spent_usd": round(spent / USD, 4),
        "overspent_usd": round(max(0, spent - limit) / USD, 4) if limit else 0,
        "used_percent": round(100 * spent / limit, 2) if limit else None,
        "first_refusal_percent": round(100 * figures.first_refusal_nano_usd / limit, 2) if limit else None,
        "cut_calls_percent": round(100 * figures.cut / max(1, figures.cut + figures.completed), 2),
        "cut_usd": round(figures.cut_nano_usd / USD, 4),
    }


def main() -> int:
    for most in (32_000, 128_000):
        sys.stdout.write(json.dumps(told(f"mix, max_tokens {most}", mix(most))) + "\n")
    half = told("mix, max_tokens 128000, half the money: as at $20 a million", mix(128_000, limit_usd=125))
    sys.stdout.write(json.dumps(half) + "\n")
    sys.stdout.write(json.dumps(told("sudden change", mix(sudden=True))) + "\n")
    for stream, warm in ((False, False), (True, False), (True, True)):
        name = f"race {'streamed' if stream else 'plain'} {'warm' if warm else 'cold'}"
        sys.stdout.write(json.dumps(told(name, race(stream, warm))) + "\n")
    sys.stdout.write(json.dumps(told("race plain cold, four tiers", race(False, False, tiers=True))) + "\n")
    for crowd in (11, 500):  # the first ten fill the budget; one more in line is an equal share
        case = f"ten modest keys beside one with {crowd} at once"
        sys.stdout.write(json.dumps({"case": case, "longest_wait_s": round(greedy(crowd), 2)}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
