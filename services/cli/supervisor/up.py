"""`sluicegate up` from the lock to the last child's end."""

import asyncio
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec
import nats.errors

from services.cli.api import Api
from services.cli.errors import Trouble
from services.cli.supervisor import data, governed, organisation, plan, ports
from services.cli.supervisor.child import Child
from services.cli.supervisor.children import Children
from services.cli.supervisor.plan import BusUrls, Options
from services.cli.supervisor.program import Broker, Service
from services.cli.supervisor.words import Summary, Words
from shared import logs
from shared.bus import Bus, BusSettings, open_bus, provision
from shared.bus.config import ConfigFollower
from shared.contracts.edge import EDGE_STATUS, EdgeStatus
from shared.contracts.message import Decoder
from shared.contracts.streams import CONFIG
from shared.errors import Unavailable
from shared.service import end

DRAIN_SECONDS = 10.0
STOP_SECONDS = 10.0
EDGE_FOLLOWS_SECONDS = 2.0  # it tells at once when something changed, and is milliseconds behind at most

_status = Decoder(EdgeStatus)


async def up(options: Options, environ: Mapping[str, str]) -> None:
    """Run until told to stop. Raises Trouble with one line when it cannot start."""
    logs.configure("error")  # people read `Words` here; the services keep their own logs
    wanted = governed.read(options.org) if options.org else None
    words = Words()
    with data.opened(options.data_dir) as layout:
        _require_free(options)
        async with data.family(layout) as family:
            run = Run(options, environ, layout, family, words)
            try:
                await run.until_told(wanted)
            except Unavailable as error:
                raise Trouble(
                    f"the broker does not answer as it should ({error}); see {layout.logs / 'nats.log'}"
                ) from None
            except OSError as error:  # a full disk, a file that somebody else owns
                raise Trouble(f"{error.filename or layout.root}: {error.strerror or error}") from None
            finally:
                words.waiting("")


def _require_free(options: Options) -> None:
    ports.require_free(options.edge_port, "--edge-port")
    ports.require_free(options.console_port, "--console-port")
    ports.require_free(options.clickhouse_port, "--clickhouse-port")
    ports.require_free(options.nats_port, "--nats-port")


class Run:
    """One start: the children, what is known of them, and the way down."""

    def __init__(
        self, options: Options, environ: Mapping[str, str], layout: data.Layout, family: int, words: Words
    ) -> None:
        self._options, self._environ, self._layout, self._words = options, environ, layout, words
        self._children = Children(layout, family, self._changed, words.line)
        self._ready = False
        self._asked_edges = options.edges
        self._edges: list[Service] = []
        self._edge_revs: dict[str, int] = {}
        self._edge_told = asyncio.Event()

    async def until_told(self, wanted: governed.Wanted | None) -> None:
        """Start, wait for SIGINT, SIGTERM or SIGHUP, stop. A second signal while stopping ends everything at once."""
        told = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._on_signal, told)
        starting = asyncio.create_task(self._start(wanted))
        waiting = asyncio.create_task(told.wait())
        try:
            await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
            await waiting
        finally:
            starting.cancel()
            waiting.cancel()
            with suppress(
                asyncio.CancelledError, Trouble, Unavailable, OSError
            ):  # either was raised above, or stopping matters more
                await starting
            await self._stop()

    def _on_signal(self, told: asyncio.Event) -> None:
        if told.is_set():
            self._words.line("stopping at once")
            self._children.kill()
        told.set()

    async def _start(self, wanted: governed.Wanted | None) -> None:
        simulator_url, former = "", self._former_simulator()
        self._words.waiting("starting the broker")
        broker = Broker(self._layout.of("nats"), self._options.nats_port, plan.base_environ(self._environ))
        await self._children.start([broker], self._started)
        bus_urls = self._bus_urls()
        async with open_bus(BusSettings(url=bus_urls.url), "up") as bus:
            first = await self._provision(bus)
            await bus.subscribe(EDGE_STATUS.format(edge="*"), self._on_edge_status)
            token, token_file = data.admin_token(self._layout, self._environ.get("SLUICEGATE_ADMIN_TOKEN", ""))
            await self._start_services(bus_urls, token_file, wanted, await self._shards(bus, wanted))
            if not plan.has_key(self._environ):
                simulator_url = self._keep_simulator()
            self._words.waiting("applying the organisation")
            api = Api(f"http://{ports.LOOPBACK}:{self._children['console'].ports['http']}", token)
            wanted = wanted or (governed.default(self._layout) if first else None)
            applied = await governed.govern(api, self._layout, wanted, simulator_url, former)
            await self._give_credentials(applied.document)
            await self._edge_follows(applied.config_rev)
        self._ready = True
        self._changed()
        self._words.ready(self._summary(applied, token, simulator_url))

    async def _shards(self, bus: Bus, wanted: governed.Wanted | None) -> list[str]:
        """As many as were asked for, and those where organisations live already."""
        config = ConfigFollower(bus)
        following = asyncio.create_task(config.run())
        try:
            await config.caught_up()
        finally:
            await end(following)
        found = {str(number) for number in range(self._options.shards)} | config.directory.shards_ever()
        if wanted:
            found |= organisation.shards(wanted.document)
        return sorted(found)

    async def _provision(self, bus: Bus) -> bool:
        """Make the streams; True when no organisation was ever written."""
        try:
            await provision(bus)
        except (nats.errors.Error, TimeoutError) as error:
            raise Unavailable("bus") from error
        return (await bus.end(CONFIG)).seq == 0

    async def _start_services(
        self, bus: BusUrls, token_file: Path, wanted: governed.Wanted | None, shards: list[str]
    ) -> None:
        self._words.waiting("starting the services")
        # the console must know the ports of edge and façade before they run, so free ones are looked for here
        options = self._options = msgspec.structs.replace(
            self._options,
            edges=max(self._options.edges, self._layout.edges()),
            edge_port=self._options.edge_port or ports.any_free(),
            clickhouse_port=self._options.clickhouse_port or ports.any_free(),
        )
        if options.edges > (asked := self._asked_edges):
            self._words.line(
                f"{options.edges} edges instead of {asked}: {self._layout.root} holds the spools of so many"
            )
        made = plan.services(self._environ, self._layout, options, bus, token_file, shards)
        self._edges = [service for service in made if service.kind == "edge"]
        names = organisation.credential_names(wanted.document) if wanted else set()
        for edge in self._edges:
            edge.set(plan.credentials(self._environ, names | self._remembered_names()))
        if not plan.has_key(self._environ):
            made.append(plan.simulator(self._environ, self._layout, self._former_simulator_port()))
        await self._children.start(made, self._started)

    def _started(self, child: Child) -> None:
        self._words.started(child.program.name, child.ports)

    # the simulator keeps its port, so that the organisation, which names it, need not change at every start

    def _former_simulator_port(self) -> int:
        known = data.read_secret(self._layout.simulator_port)
        return int(known) if known.isdigit() and ports.is_free(int(known)) else 0

    def _former_simulator(self) -> frozenset[str]:
        known = data.read_secret(self._layout.simulator_port)
        return frozenset({f"http://{ports.LOOPBACK}:{known}"}) if known else frozenset()

    def _keep_simulator(self) -> str:
        port = self._children["simulator"].ports["http"]
        data.write_secret(self._layout.simulator_port, str(port))
        return f"http://{ports.LOOPBACK}:{port}"

    # credentials: the edge alone gets them, and only those that the organisation names

    def _remembered_names(self) -> set[str]:
        return set(data.read_secret(self._layout.credential_names).split())

    async def _give_credentials(self, document: organisation.Document) -> None:
        """Start edges again when the organisation names a variable that they were not given: changed through the API."""
        names = organisation.credential_names(document)
        data.write_secret(self._layout.credential_names, " ".join(sorted(names)))
        wanted = plan.credentials(self._environ, names)
        for edge in self._edges:  # one after the other, so that there is always one
            given = edge.environ()
            if any(given.get(name) != value for name, value in wanted.items()):
                edge.set(wanted)
                await self._children[edge.name].restart()

    async def _on_edge_status(self, message: bytes) -> None:
        status = _status.decode(message)
        self._edge_revs[status.edge] = status.config_rev
        self._edge_told.set()

    async def _edge_follows(self, config_rev: int) -> None:
        """Wait until every edge has what was applied, so that the first request after "ready" finds its key."""
        with suppress(TimeoutError):
            async with asyncio.timeout(EDGE_FOLLOWS_SECONDS):
                while sum(rev >= config_rev for rev in self._edge_revs.values()) < len(self._edges):
                    self._edge_told.clear()
                    await self._edge_told.wait()

    def _bus_urls(self) -> BusUrls:
        told = self._children["nats"].ports
        return BusUrls(f"nats://{ports.LOOPBACK}:{told['nats']}", f"http://{ports.LOOPBACK}:{told['monitor']}")

    def _changed(self) -> None:
        """A pid or port is new: ports.json follows, once there is one."""
        if not self._ready:
            return
        known = self._children.ports
        ports.write(
            self._layout.ports,
            {
                "edge": known["edge"]["edge"],
                "edge_url": self._options.edge_url(known["edge"]["edge"]),
                "console": known["console"]["http"],
                "clickhouse": known["analytics"]["clickhouse"],
                "nats": known["nats"]["nats"],
                "pids": self._children.pids,
                "pid": os.getpid(),
                "http": {name: found["http"] for name, found in known.items() if "http" in found},
                "nats_monitor": known["nats"]["monitor"],
            },
        )

    def _summary(self, applied: governed.Applied, token: str, simulator_url: str) -> Summary:
        known = self._children.ports
        simulated = organisation.simulated(applied.document, simulator_url)
        traffic = [f"{name} goes to {where}" for name, where in organisation.real(applied.document, simulator_url)]
        if simulated:
            traffic.append(
                f"{', '.join(simulated)} goes to the simulator, as {organisation.API_KEY} is not set; "
                f"its bill: {self._layout.bill}"
            )
        traffic += organisation.unset(applied.document, self._edges[0].environ())
        return Summary(
            base_url=f"{self._options.edge_url(known['edge']['edge'])}/anthropic",
            first_key=applied.first_key,
            first_key_name=applied.first_key_name,
            console_url=f"http://{ports.LOOPBACK}:{known['console']['http']}",
            clickhouse_url=f"http://{ports.LOOPBACK}:{known['analytics']['clickhouse']}",
            admin_token=token,
            traffic=traffic,
            made=applied.made,
            data_dir=str(self._layout.root),
            logs=str(self._layout.logs),
        )

    async def _stop(self) -> None:
        """Edge first, so that streams end; the broker last, so that all that was said is stored."""
        self._ready = False
        self._layout.ports.unlink(missing_ok=True)
        self._words.waiting("stopping: edge lets streams end; Ctrl-C again ends everything at once")
        await self._children.stop([plan.names("edge", self._options.edges)], DRAIN_SECONDS)
        self._words.waiting("stopping")
        await self._children.stop(
            [
                ["simulator", "console"],
                ["analytics", "audit", "telemetry"],
                ["pricing"],
                plan.names("budget", self._options.budgets),
                ["nats"],
            ],
            STOP_SECONDS,
        )
        self._words.waiting("")
        self._words.line(f"stopped; all state is in {self._layout.root}")
