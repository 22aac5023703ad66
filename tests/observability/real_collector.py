"""What tests/observability/collector runs: a real OpenTelemetry Collector takes our spans, and writes down what it has read."""

import json
import os
from asyncio.subprocess import Process
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from tests.e2e.test_up_traced import PARENT, TRACE, ask
from tests.fixtures.ports import free_port
from tests.fixtures.up import running
from tests.fixtures.waiting import until
from tests.observability.programs import configured, started

KINDS = {2: "server", 3: "client"}


class Seen(msgspec.Struct, frozen=True):
    """One span as the collector wrote it."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]


class Collector:
    """It listens by both protocols whenever it runs; what it wrote stays."""

    def __init__(self, folder: Path) -> None:
        self.http, self.grpc = free_port(), free_port()
        self._folder = folder
        receiver = {
            "protocols": {
                "http": {"endpoint": f"127.0.0.1:{self.http}"},
                "grpc": {"endpoint": f"127.0.0.1:{self.grpc}"},
            }
        }
        pipeline = {"receivers": ["otlp"], "exporters": ["file"]}
        config = {
            "receivers": {"otlp": receiver},
            "exporters": {"file": {"path": str(folder / "told.json"), "append": True}},
            "service": {
                "pipelines": {"traces": pipeline, "metrics": pipeline},
                "telemetry": {"metrics": {"level": "none"}},
            },
        }
        self._config = configured(folder, "config.yaml", yaml.safe_dump(config))

    def running(self) -> AbstractAsyncContextManager[Process]:
        return started(self._folder, os.environ["OTELCOL"], "--config", str(self._config))

    def _lines(self) -> Iterator[Any]:
        told = self._folder / "told.json"
        if told.exists():
            whole, _, _ = told.read_text().rpartition("\n")  # it may be writing the next
            yield from (json.loads(line) for line in whole.splitlines())

    def spans(self) -> list[Seen]:
        scopes = [
            scope for line in self._lines() for each in line.get("resourceSpans", ()) for scope in each["scopeSpans"]
        ]
        return [_seen(span) for scope in scopes for span in scope["spans"]]

    def metrics(self) -> set[str]:
        found = [each for line in self._lines() for each in line.get("resourceMetrics", ())]
        return {metric["name"] for each in found for scope in each["scopeMetrics"] for metric in scope["metrics"]}


def _seen(span: dict[str, Any]) -> Seen:
    attributes = {each["key"]: next(iter(each["value"].values()), "") for each in span["attributes"]}
    parent = span.get("parentSpanId", "")
    return Seen(span["name"], KINDS[span["kind"]], span["traceId"], span["spanId"], parent, attributes)


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
async def test_a_real_collector_reads_our_traces_and_metrics(tmp_path: Path, protocol: str) -> None:
    collector = Collector(tmp_path / "collector")
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.grpc if protocol == 'grpc' else collector.http}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "2",
        "OTEL_METRIC_EXPORT_INTERVAL": "500",
    }
    async with running(tmp_path, environ=environ) as up:
        async with collector.running():
            assert await ask(up, traceparent=f"00-{TRACE}-{PARENT}-01") == 200
            await until(lambda: len(collector.spans()) == 2, 30, "both spans")
            wanted = {"gen_ai.client.token.usage", "gen_ai.client.operation.duration"}
            await until(lambda: collector.metrics() >= wanted, 30, "metrics")
        for _ in range(5):
            assert await ask(up) == 200, "nobody waits for a collector that is away"
        async with collector.running():
            await until(lambda: len(collector.spans()) >= 12, 60, "what happened while it was away")
    found = collector.spans()
    assert len({each.span_id for each in found}) == 12
    [request] = [each for each in found if each.parent_id == PARENT]
    [attempt] = [each for each in found if each.parent_id == request.span_id]
    assert request.trace_id == attempt.trace_id == TRACE
    assert (request.kind, attempt.kind) == ("server", "client")
    show(protocol, request, attempt, collector.metrics())


def show(protocol: str, request: Seen, attempt: Seen, metrics: set[str]) -> None:
    """For who ran it."""
    print(f"\n{protocol}: trace {request.trace_id} below {request.parent_id}; metrics {', '.join(sorted(metrics))}")  # noqa: T201  # that is what it is for
    for indent, span in (("", request), ("  ", attempt)):
        print(f"{indent}{span.name} ({span.kind}) {span.attributes}")  # noqa: T201  # as above
