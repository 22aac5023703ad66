"""A real Prometheus scrapes a real `sluicegate up`: every query of the alerts and dashboards finds what it asks for."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import aiohttp
import yaml

from tests.fixtures.ports import free_port
from tests.fixtures.up import Up, running
from tests.fixtures.waiting import until
from tests.observability.files import ALERT_FILES, DASHBOARD_FILES, NOT_OURS, Json, all_alerts, names, panels
from tests.observability.programs import configured, program, started

VARIABLES = {"$namespace": ".*", "$job": ".*", "$__rate_interval": "30s", "$__range": "5m"}
MESSAGE = {"model": "claude-haiku-5-5", "max_tokens": 64, "messages": [{"role": "user", "content": "hello"}]}


class Prometheus:
    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url, self._session = url, session

    async def get(self, path: str, **parameters: str) -> Json:
        async with self._session.get(f"{self._url}/api/v1/{path}", params=parameters) as answer:
            found: Json = await answer.json()
            assert found["status"] == "success", f"{parameters}: {found}"
            return found

    async def query(self, query: str) -> list[Json]:
        for name, value in VARIABLES.items():
            query = query.replace(name, value)
        found: list[Json] = (await self.get("query", query=query))["data"]["result"]
        return found

    async def up(self) -> bool:
        try:
            async with self._session.get(f"{self._url}/-/ready") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False


@asynccontextmanager
async def prometheus(folder: Path, ports: Mapping[str, int]) -> AsyncIterator[Prometheus]:
    """Scrapes these services each second, labelled as a ServiceMonitor labels them, and evaluates the chart's rules."""
    targets = [
        {
            "targets": [f"127.0.0.1:{port}"],
            "labels": {
                "namespace": "llm",
                "pod": f"{name}-0",
                "container": name,
                "service": name,
                "endpoint": "metrics",
            },
        }
        for name, port in ports.items()
    ]
    scrape = {"job_name": "sluicegate", "static_configs": targets}
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(path) for path in ALERT_FILES],
        "scrape_configs": [scrape],
    }
    configured(folder, "prometheus.yml", yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    command = (program("prometheus"), "--config.file=prometheus.yml", f"--web.listen-address={address}")
    async with started(folder, *command, "--storage.tsdb.path=data"), aiohttp.ClientSession() as session:
        found = Prometheus(f"http://{address}", session)
        await until(found.up, 30, "Prometheus")
        yield found


async def traffic(up: Up) -> None:
    """Streamed and whole answers, and one that the provider refuses."""
    headers = {"authorization": f"Bearer {up.first_key}", "anthropic-version": "2023-06-01"}
    async with aiohttp.ClientSession(headers=headers) as session:
        for body in (MESSAGE, MESSAGE | {"stream": True}):
            async with session.post(f"{up.base_url}/v1/messages", json=body) as answer:
                assert answer.status == 200, await answer.text()
                await answer.read()
        async with session.post(
            f"{up.base_url}/v1/messages", json=MESSAGE, headers={"x-simulator": "status=400"}
        ) as bad:
            assert bad.status == 400, await bad.text()


async def settled(found: Prometheus) -> bool:
    """The traffic has come all the way into the tables and the audit, and Prometheus has seen the counters rise."""
    rises = (
        "sluicegate_edge_requests_total",
        'sluicegate_analytics_rows_total{table="usage_v1"}',
        'sluicegate_analytics_rows_total{table="requests_v1"}',
        "sluicegate_audit_pages_total",
        'sluicegate_log_behind_seconds{service_name="budget"}',
    )
    return all([await found.query(f"rate({each}[30s])") for each in rises])


async def test_every_query_of_the_dashboards_and_alerts_finds_what_it_asks_for(tmp_path: Path) -> None:
    program("prometheus")
    async with running(tmp_path, environ={"SLUICEGATE_EDGE_WORKERS": "2"}) as up:
        await traffic(up)
        async with prometheus(tmp_path / "prometheus", up.ports["http"]) as found:
            await until(lambda: settled(found), 60, "metrics of all that happened")
            await traffic(up)
            known = set((await found.get("label/__name__/values"))["data"])
            for path in DASHBOARD_FILES:
                await ask_panels(found, path, known)
            for rule in all_alerts():
                await found.query(rule["expr"])
                assert names(rule["expr"]) - known <= NOT_OURS, rule["alert"]
            rules = (await found.get("rules"))["data"]["groups"]
            states = {rule["name"]: rule["health"] for group in rules for rule in group["rules"]}
            assert states == dict.fromkeys(states, "ok")
            assert len(states) == len(all_alerts())
            labels = (await found.get("labels"))["data"]
            assert not [label for label in labels if label.startswith("exported_")]  # one of ours that the scrape sets
            await tells_only_of_itself(found)
            await tells_what_happened(found)


async def ask_panels(found: Prometheus, path: Path, known: set[str]) -> None:
    """A query without an error that finds nothing is a dead panel."""
    for panel in panels(path):
        for target in panel["targets"]:
            query = target["expr"]
            assert names(query) <= known, f"{path.name}, {panel['title']}: {names(query) - known}"
            assert await found.query(query), f"{path.name}, {panel['title']}: nothing for {query}"


async def tells_only_of_itself(found: Prometheus) -> None:
    """A gauge of the edge that pricing shows as 0 would make sums wrong. The edge has two workers here."""
    ready = await found.query("sluicegate_ready")
    assert {each["metric"]["service_name"] for each in ready} >= {
        "edge",
        "budget",
        "pricing",
        "audit",
        "analytics",
        "console",
    }
    assert {each["value"][1] for each in ready} == {"1"}
    series = {"sluicegate_edge_connections": 2, "sluicegate_budget_holds": 1, "sluicegate_pricing_records_total": 1}
    assert {query: len(await found.query(query)) for query in series} == series


async def tells_what_happened(found: Prometheus) -> None:
    """Twice: a streamed answer, a whole one, and one that the provider refused."""
    truths = (
        'sum(sluicegate_edge_attempts_total{provider="anthropic", outcome="ok"}) == 4',
        'sum(sluicegate_edge_attempts_total{provider="anthropic", outcome="upstream_error"}) == 2',
        "sum(sluicegate_edge_spool_acknowledged_total) >= 12",
        "sum(sluicegate_edge_spool_disk_free_bytes / sluicegate_edge_spool_disk_bytes) > 0",
        'sluicegate_budget_owned{shard="0"} == 1',
        'sluicegate_budget_owner_epoch{shard="0"} == 1',
        "sluicegate_budget_broker_unsynced == 0",
        "sum(sluicegate_budget_entries_total) == 6",
        "sluicegate_budget_booked_nano_usd_total > 0",
        "sluicegate_budget_returned_nano_usd_total == 0",
        "sluicegate_pricing_undecodable_total == 0",
        "time() - sluicegate_pricing_book_published_timestamp_seconds < 10 * 365 * 24 * 3600",
        "count(sluicegate_log_behind_seconds) == 8",  # pricing 1, budget 1, analytics 3, audit 3
        "max(sluicegate_log_behind_records) == 0",
        "max(sluicegate_log_behind_seconds) == 0",
    )
    for truth in truths:
        await until(partial(found.query, truth), 30, truth)
