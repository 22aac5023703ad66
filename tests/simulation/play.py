"""One simulation from its seed: traffic and mischief, then calm, then the verdict."""

import asyncio
from collections.abc import Callable

import msgspec

from tests.simulation import company
from tests.simulation.clock import MICROS, end_all
from tests.simulation.disk import Disk
from tests.simulation.edge import Edge, Request
from tests.simulation.followers import Pricing, Rows
from tests.simulation.oracle import Oracle
from tests.simulation.owner import ABSENT_MICROS, Owner
from tests.simulation.provider import Work
from tests.simulation.world import MUTANTS, RARE_MUTANTS, Process, World

EDGES = 2
REQUESTS = 140
HOSTILE_SECONDS = (60.0, 60.0, 250.0)
REST_SECONDS = 6 * ABSENT_MICROS / MICROS  # more than the owner's patience with what nobody lists


class Outcome(msgspec.Struct, frozen=True):
    """failures: in the order found, empty when all is well. estimated: by how much flagged entries differ, nano-USD.

    seen: how often what happened.
    """

    seed: int
    failures: tuple[str, ...]
    trace: tuple[str, ...]
    estimated: dict[str, int]
    seen: dict[str, int]


class Play:
    def __init__(self, world: World) -> None:
        self.world = world
        self._count = 0
        self._cast: dict[str, Process] = {}
        self._absent: dict[str, int] = {}
        world.oracle = Oracle(world)
        for number in range(EDGES):
            world.disks[f"e{number}"] = Disk(f"e{number}")

    def _name(self, role: str) -> str:
        self._count += 1
        return f"{role}-{self._count}"

    def _supervise(self, role: str, make: Callable[[], Process]) -> None:
        """Start it, and again a little after it has died."""
        world = self.world
        process = self._cast.get(role)
        if (process is None or not process.alive) and self._absent.get(role, 0) <= world.now():
            if process:
                world.note(f"{role}: started again")
            self._cast[role] = process = make()
            process.spawn(process.run())
        pause = world.rng.uniform(0.05, 3) if world.hostile else 0.5
        world.loop.call_later(pause, self._supervise, role, make)

    def _roles(self) -> dict[str, Callable[[], Process]]:
        world = self.world
        roles: dict[str, Callable[[], Process]] = {
            "owner": lambda: Owner(world, self._name("owner")),
            "pricing": lambda: Pricing(world, self._name("pricing")),
            "rows": lambda: Rows(world, self._name("rows")),
        }
        for disk in world.disks.values():
            roles[disk.edge] = lambda disk=disk: Edge(world, disk)  # type: ignore[misc]  # a default argument binds it
        return roles

    async def run(self) -> None:
        world = self.world
        for role, make in self._roles().items():
            self._supervise(role, make)
        hostile = world.rng.choice(HOSTILE_SECONDS)
        for number in range(REQUESTS):
            world.loop.call_later(world.rng.uniform(0.1, hostile), self._request, number)
        mischief = asyncio.gather(*(self._mischief() for _ in range(2)))
        await self._unless_failed(hostile)
        mischief.cancel()
        await asyncio.gather(mischief, return_exceptions=True)
        world.hostile = False
        world.note("calm")
        await self._unless_failed(REST_SECONDS)
        if not world.failures:
            world.oracle.judge()
            owner = self._cast["owner"]
            assert isinstance(owner, Owner)
            if owner.seq == len(world.broker.streams["LEDGER"].stored):
                world.oracle.same(owner)

    async def _unless_failed(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self.world.failed.wait()
        except TimeoutError:
            return

    def _request(self, number: int) -> None:
        world, rng = self.world, self.world.rng
        edge = self._cast[rng.choice(list(world.disks))]
        key = rng.choice(company.KEYS)
        sizes = (500, 1_500) if key == "roomy" else (500, 3_000, 8_000, 30_000)
        text_bytes, max_tokens = rng.randint(10, 4_000), rng.choice(sizes)
        work = Work(
            input_tokens=rng.randint(1, 1_000 + text_bytes // 2),
            output_tokens=rng.randint(1, rng.choice((500, max_tokens))),
            begins_micros=rng.randint(1_000, 2 * MICROS),
            lasts_micros=rng.randint(1_000, rng.choice((MICROS, 20 * MICROS))),
            fate=rng.choice(("answers",) * 8 + ("refuses", "breaks")),
        )
        request = Request(
            name=f"q{number}",
            key=key,
            text_bytes=text_bytes,
            max_tokens=max_tokens,
            stream=rng.random() < 0.7,
            stays_micros=rng.choice((rng.randint(1, 5 * MICROS), 60 * MICROS, 60 * MICROS)),
            work=work,
            session=rng.choice(("", "s1", "s2")),
            unreachable=rng.random() < 0.1,
            extends=rng.random() < 0.5,
        )
        if isinstance(edge, Edge) and edge.alive:
            edge.spawn(edge.serve(request))

    async def _mischief(self) -> None:
        """One thing after another, now and then, drawn from what happens to machines."""
        world, rng = self.world, self.world.rng
        acts = (
            *(self._kill, self._kill, self._power_cut, self._long_gone, self._disconnect),
            *(self._disk_stalls, self._disk_stalls),
            *(self._broker_away, self._rival, self._new_config),
        )
        while True:
            await asyncio.sleep(rng.uniform(0.2, 8))
            if world.hostile:
                act = rng.choice(acts)
                world.seen[act.__name__] += 1
                act()

    def _kill(self) -> None:
        self._cast[self.world.rng.choice(list(self._cast))].kill("killed")

    def _power_cut(self, disk: Disk | None = None) -> None:
        """An edge's machine loses power, and what was not synced."""
        disk = disk or self.world.rng.choice(list(self.world.disks.values()))
        self._cast[disk.edge].kill("switched off")
        disk.power_cut(self.world)

    def _disk_stalls(self) -> None:
        """A disk takes its time, and sometimes the machine dies of it."""
        world, disk = self.world, self.world.rng.choice(list(self.world.disks.values()))
        stall = world.rng.uniform(0.5, 4)
        disk.stalled_until = world.now() + int(stall * MICROS)
        world.note(f"{disk.edge}: disk stalls for {stall:.1f} s")
        if world.rng.random() < 0.7:
            world.loop.call_later(stall * world.rng.uniform(0.5, 1), self._power_cut, disk)

    def _long_gone(self) -> None:
        """For longer than holds live unlisted, or than the broker remembers message ids."""
        self._power_cut()
        role = self.world.rng.choice(list(self.world.disks))
        self._cast[role].kill("gone for long")
        self._absent[role] = self.world.now() + self.world.rng.randint(30, 200) * MICROS

    def _disconnect(self) -> None:
        world = self.world
        process = self._cast[world.rng.choice(list(self._cast))]
        process.port.cut_until = world.now() + world.rng.randint(10_000, 10 * MICROS)
        world.note(f"{process.name}: disconnected")

    def _broker_away(self) -> None:
        self.world.broker.down_until = self.world.now() + self.world.rng.randint(10_000, 5 * MICROS)
        self.world.note("broker: away")

    def _rival(self) -> None:
        """A second one of what there must be only one of; the one before lives on, unsupervised."""
        role = self.world.rng.choice(("owner", "pricing"))
        name, world = self._name(role), self.world
        rival: Process = Owner(world, name) if role == "owner" else Pricing(world, name)
        world.note(f"{name}: beside {self._cast[role].name}")
        self._cast[role] = rival
        rival.spawn(rival.run())

    def _new_config(self) -> None:
        world = self.world
        world.config_rev += 1
        rev = world.config_rev
        world.note(f"console: config {rev}")

        def heard() -> None:
            world.config_rev_heard = max(world.config_rev_heard, rev)

        world.loop.call_later(world.rng.uniform(0, 1), heard)


def simulate(seed: int, mutant: str = "") -> Outcome:
    """Play it and judge it. mutant: a fault built in on purpose, one of MUTANTS."""
    assert mutant in ("", *MUTANTS, *RARE_MUTANTS)
    world = World(seed, mutant)
    try:
        world.loop.run_until_complete(Play(world).run())
    finally:
        end_all(world.loop)
    return Outcome(seed, tuple(world.failures), tuple(world.trace), world.oracle.differences, dict(world.seen))
