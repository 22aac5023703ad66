"""An installation to be mistreated: `sluicegate up` with traffic, and what can be done to its processes."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import clickhouse_connect.driver.exceptions
import msgspec

from services.cli.errors import Trouble
from services.cli.supervisor.plan import ON_THE_BUS
from services.simulator.load import Done, Summary, Target, simulate
from tests.chaos import books, mutants
from tests.chaos.company import KEYS, organisation
from tests.chaos.judge import Figures, Judge
from tests.chaos.proxy import Proxy, proxy
from tests.fixtures import money
from tests.fixtures.ports import free_port
from tests.fixtures.up import Up, running
from tests.fixtures.waiting import until

SERVICES = ("budget", "pricing", "audit", "analytics", "console", "edge", "nats", "simulator")
STATUS_SECONDS, ABSENT_SECONDS = 1, 12
"""Holds of an edge that has forgotten them expire sooner than in production, so that a run can see it."""
SLOWLY = "ttft_ms=300,chunk_ms=40"
EACH_ASKED = {"SLUICEGATE_EDGE_LEASES": "false"}
"""The owner decides over every attempt, as it does near a cap; else most are paid from leases."""
REST_SECONDS = 90.0


class Stage(msgspec.Struct, kw_only=True):
    """broker, provider: the proxies that stand before them. whole: upstream ids of answers seen to their end."""

    up: Up
    bill: Path
    broker: Proxy
    provider: Proxy
    whole: set[str] = msgspec.field(default_factory=set)

    def pid(self, service: str) -> int:
        pid: int = self.up.now()["pids"][service][0]
        return pid

    def signal(self, service: str, number: int) -> None:
        """To a process that may have died this instant."""
        with suppress(ProcessLookupError):
            os.kill(self.pid(service), number)

    def kill(self, service: str) -> None:
        self.signal(service, signal.SIGKILL)

    @asynccontextmanager
    async def frozen(self, service: str) -> AsyncIterator[None]:
        """Stopped, yet still there: its connections stay."""
        pid = self.pid(service)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    async def traffic(
        self,
        seconds: float | None,
        clients: int,
        directives: str = SLOWLY,
        *,
        seed: int = 0,
        patience: int = 200,
        **more: object,
    ) -> Summary:
        """Clients that ask again so often where they are not answered."""
        target = Target(base_url=self.up.base_url, keys=KEYS)

        def progress(done: Done, _: Summary) -> None:
            if done.result == "ok":
                self.whole.add(done.request_id)

        return await simulate(
            target,
            seconds=seconds,
            concurrency=clients,
            seed=seed,
            patience=patience,
            directives=directives,
            progress=progress,
            **more,  # type: ignore[arg-type]  # by name, as `simulate` takes them
        )

    def bill_lines(self) -> list[dict[str, Any]]:
        """The provider's, as far as it is written."""
        return money.bill_lines(self.bill)

    async def live_attempts(self) -> int:
        """Between the grant and their end, as the edge tells."""
        port = self.up.ports["http"]["edge"]
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        return int(float(next(line.split()[1] for line in lines if line.startswith("sluicegate_edge_live_attempts "))))

    async def at_rest(self, seconds: float = REST_SECONDS) -> None:
        """Nothing is held, all that was sent has its row, and nothing has moved for two seconds."""
        seen: dict[tuple[object, ...], float] = {}

        def quiet() -> bool:
            now = self._position()
            since = seen.setdefault(now, time.monotonic())
            return now[0] == 0 and time.monotonic() - since > 2.0

        async def check() -> bool:
            try:
                return await asyncio.to_thread(quiet)
            except (Trouble, OSError, clickhouse_connect.driver.exceptions.ClickHouseError):
                return False  # whom we ask is being started again

        await until(check, seconds, "P1: every attempt closed, every hold released, all at rest")

    def _position(self) -> tuple[object, ...]:
        held = sum(budget["held_nano_usd"] for budget in money.budgets(self.up))
        requests = money.rows(self.up, "SELECT count() AS n FROM requests")[0]["n"]
        rows = money.rows(self.up, "SELECT count() AS n FROM usage")[0]["n"]
        return held, requests, rows, self.bill.stat().st_size

    async def judged(self) -> Figures:
        """Raises Broken."""
        await self.at_rest()
        return Judge(await books.of_installation(self.up, self.bill), self.whole).verdict()


@asynccontextmanager
async def stage(
    folder: Path,
    *,
    through_broker_proxy: Iterable[str] = (),
    tight_usd: float = 0.6,
    environ: Mapping[str, str] | None = None,
) -> AsyncIterator[Stage]:
    """Everything running. through_broker_proxy: services whose way to the broker can be disturbed. The provider's always can."""
    nats_port, edge_port = free_port(), free_port()
    bill = folder / "bill.jsonl"
    async with proxy(nats_port) as broker, proxy() as provider:
        settings = {
            "SLUICEGATE_SIMULATOR_BILL_FILE": str(bill),
            "SLUICEGATE_BUDGET_ABSENT_SECONDS": str(ABSENT_SECONDS),
            "SLUICEGATE_EDGE_STATUS_INTERVAL_SECONDS": str(STATUS_SECONDS),
        }
        for service in through_broker_proxy:
            assert service in ON_THE_BUS
            settings[f"SLUICEGATE_{service.upper()}_BUS_URL"] = f"nats://127.0.0.1:{broker.port}"
        org = organisation(folder, f"http://127.0.0.1:{provider.port}", tight_usd)
        async with running(
            folder,
            org=org,
            environ=settings | dict(environ or {}),
            arguments=("--nats-port", str(nats_port), "--edge-port", str(edge_port)),
            program=mutants.supervisor(),
        ) as up:
            provider.target_port = up.ports["http"]["simulator"]
            yield Stage(up=up, bill=bill, broker=broker, provider=provider)
