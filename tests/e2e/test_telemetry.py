"""Records on a real bus become spans at a real receiver, whatever that receiver does."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from aiohttp import web
from prometheus_client import REGISTRY

from services.telemetry.app import build_app
from services.telemetry.settings import Settings, signals
from services.telemetry.stores.session import MOST_ANSWER_BYTES
from shared import clock
from shared.bus import Bus, BusSettings
from shared.contracts.edge import REQUEST_COMPLETED, RequestCompleted
from shared.contracts.message import bundle, encode
from shared.contracts.pricing import USAGE_PRICED, UsagePriced
from shared.contracts.streams import PRICED, READERS, REQUESTS, Position
from tests.contract.samples import PRICED as PRICED_SAMPLE
from tests.contract.samples import PRINCIPAL
from tests.fixtures.otlp import Collector, over_grpc, over_http
from tests.fixtures.tls import Authority
from tests.fixtures.waiting import until

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def ended(request_id: str, at: int | None = None) -> RequestCompleted:
    at = at or clock.now()
    return RequestCompleted(
        request_id=request_id, edge="e", epoch=1, spool_seq=1, principal=PRINCIPAL, verdict="admitted", status=200,
        received_at=at - 1_000_000, closed_at=at, operation="messages", trace_id=TRACE, parent_span_id=PARENT,
    )  # fmt: skip


def priced(request_id: str) -> UsagePriced:
    usage = msgspec.structs.replace(PRICED_SAMPLE.usage, request_id=request_id, rid=f"{request_id}-1", trace_id=TRACE)
    return msgspec.structs.replace(PRICED_SAMPLE, usage=usage)


async def tell(bus: Bus, *request_ids: str) -> None:
    for request_id in request_ids:
        await bus.append(REQUEST_COMPLETED, encode(ended(request_id)))


@asynccontextmanager
async def telemetry(
    bus_settings: BusSettings, keep_seconds: int = 600, flush_interval_ms: int = 20, position_interval_ms: int = 20
) -> AsyncIterator[None]:
    settings = Settings(
        bus=bus_settings,
        keep_seconds=keep_seconds,
        flush_interval_ms=flush_interval_ms,
        position_interval_ms=position_interval_ms,
    )
    runner = web.AppRunner(build_app(settings, signals({})), access_log=None)
    await runner.setup()
    try:
        yield
    finally:
        await runner.cleanup()


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    """By HTTP; the exporter gives up on one try after two seconds."""
    found = Collector()
    async with over_http(found) as port:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2")
        yield found


def counted(result: str) -> float:
    return REGISTRY.get_sample_value("sluicegate_telemetry_spans_total", {"result": result}) or 0


def told(collector: Collector) -> list[str]:
    return [str(each.attributes["sluicegate.request.id"]) for each in collector.requests]


async def test_both_records_come_as_one_trace_below_the_caller_s_span(
    bus: Bus, bus_settings: BusSettings, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    async with telemetry(bus_settings):
        await tell(bus, "r1")
        await bus.append(USAGE_PRICED.format(shard="0"), encode(priced("r1")))
        await until(lambda: collector.requests and collector.attempts, what="two spans")
    [request], [attempt] = collector.requests, collector.attempts
    assert (request.trace_id, request.parent_id) == (TRACE, PARENT)
    assert (attempt.trace_id, attempt.parent_id) == (TRACE, request.span_id)
    assert attempt.attributes["sluicegate.cost_nano_usd"] == PRICED_SAMPLE.cost_nano_usd
    assert request.resource["service.name"] == "sluicegate"
    assert request.resource["deployment.environment.name"] == "test"
    assert collector.headers[0]["Authorization"] == "Bearer abc"


async def test_the_same_by_grpc(bus: Bus, bus_settings: BusSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    collector = Collector()
    with over_grpc(collector) as port:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        settings = Settings(bus=bus_settings, flush_interval_ms=20)
        runner = web.AppRunner(build_app(settings, signals({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})), access_log=None)
        await runner.setup()
        await tell(bus, "r1")
        await until(lambda: collector.requests, what="a span")
        await runner.cleanup()
    assert (collector.requests[0].trace_id, collector.requests[0].parent_id) == (TRACE, PARENT)


async def test_a_receiver_is_believed_whose_certificate_is_that_of_the_authority_named(
    bus: Bus, bus_settings: BusSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(Authority(tmp_path / "of everything else").file))
    ours, collector, failed = Authority(tmp_path / "ours"), Collector(), _exports("failed")
    async with over_http(collector, tls=ours.server("localhost")) as port:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"https://localhost:{port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(Authority(tmp_path / "other").file))
        async with telemetry(bus_settings):
            await tell(bus, "r1")
            await until(lambda: _exports("failed") > failed, what="a failed try")
        assert collector.exports == 0
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(ours.file))
        async with telemetry(bus_settings):
            await until(lambda: collector.requests, what="a span")


async def test_the_first_start_begins_now_and_the_next_goes_on_where_it_was(
    bus: Bus, bus_settings: BusSettings, collector: Collector
) -> None:
    await tell(bus, "before")
    async with telemetry(bus_settings):
        await tell(bus, "first")
        await until(lambda: collector.spans, what="a span")
    await tell(bus, "while away")
    async with telemetry(bus_settings):
        await until(lambda: len(collector.spans) > 1, what="another span")
    assert told(collector) == ["first", "while away"]


async def test_what_is_told_twice_is_told_by_the_same_ids(
    bus: Bus, bus_settings: BusSettings, collector: Collector
) -> None:
    async with telemetry(bus_settings, position_interval_ms=3_600_000):
        await tell(bus, "again")
        await until(lambda: collector.spans, what="a span")
        bucket = await bus.bucket(READERS)
        forgotten = (await bucket.get(f"telemetry.{REQUESTS}")).value or b""
    await bucket.put(f"telemetry.{REQUESTS}", forgotten)  # as after a crash
    async with telemetry(bus_settings):
        await until(lambda: len(collector.spans) > 1, what="it once more")
    first, second = collector.spans
    assert first.span == second.span


@pytest.mark.parametrize("status", [429, 503, 500, 401, 302])
async def test_a_receiver_that_will_not_is_tried_again_and_then_has_everything_once(
    bus: Bus, bus_settings: BusSettings, collector: Collector, status: int
) -> None:
    collector.status, collector.location = status, "http://elsewhere.example/"
    async with telemetry(bus_settings):
        await tell(bus, *(f"r{number}" for number in range(20)))
        await until(lambda: collector.exports, what="a try")
        collector.status = 200
        await until(lambda: len(collector.spans) == 20, 20, "all spans")
    assert told(collector) == [f"r{number}" for number in range(20)]


async def test_a_receiver_that_is_away_for_a_while_gets_what_happened_meanwhile(
    bus: Bus, bus_settings: BusSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector = Collector()
    async with over_http(collector) as port:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    failed = _exports("failed")
    async with telemetry(bus_settings):
        await tell(bus, "r1", "r2")
        await until(lambda: _exports("failed") > failed, what="a failed try")
        async with over_http(collector, port):
            await until(lambda: len(collector.spans) == 2, 20, "both spans")


def _exports(result: str) -> float:
    return REGISTRY.get_sample_value("sluicegate_telemetry_exports_total", {"result": result}) or 0


async def test_what_is_too_old_when_the_receiver_comes_back_is_dropped_and_counted(
    bus: Bus, bus_settings: BusSettings, collector: Collector
) -> None:
    collector.status, before = 503, counted("dropped")
    async with telemetry(bus_settings, keep_seconds=5):
        old = [encode(ended(f"old{number}", clock.now() - 60_000_000)) for number in range(1_200)]
        await asyncio.gather(*(bus.append(REQUEST_COMPLETED, bundle(old[n : n + 10])) for n in range(0, 1_200, 10)))
        await until(lambda: counted("dropped") - before == 1_200, 20, "all of them dropped")
        collector.status = 200
        await tell(bus, "young")
        await until(lambda: collector.spans, 20, "the young one")
    assert told(collector) == ["young"]
    assert collector.exports < 20, "nothing old is tried for itself while the receiver is away"


async def test_spans_that_are_refused_for_good_are_counted_and_the_next_ones_told(
    bus: Bus, bus_settings: BusSettings, collector: Collector
) -> None:
    collector.status, before = 400, counted("refused")
    async with telemetry(bus_settings):
        await tell(bus, "bad")
        await until(lambda: counted("refused") > before, what="the refusal")
        collector.status = 200
        await tell(bus, "good")
        await until(lambda: collector.spans, what="the next")
    assert told(collector) == ["good"]


async def test_what_is_no_record_is_left_out(bus: Bus, bus_settings: BusSettings, collector: Collector) -> None:
    before = counted("unreadable")
    async with telemetry(bus_settings):
        await bus.append(REQUEST_COMPLETED, b"\xc1 no message")
        newer = encode(msgspec.structs.replace(ended("newer"), v=2))
        await bus.append(REQUEST_COMPLETED, bundle([newer, encode(ended("good"))]))
        await bus.append(REQUEST_COMPLETED, bundle([newer, newer])[:-3])
        await tell(bus, "last")
        await until(lambda: len(collector.spans) == 2, what="two spans")
    assert (told(collector), counted("unreadable") - before) == (["good", "last"], 3)


async def test_a_receiver_that_never_answers_does_not_keep_the_service_from_ending(
    bus: Bus, bus_settings: BusSettings, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "600")
    collector.held.clear()
    async with telemetry(bus_settings):
        await tell(bus, "r1")
        await until(lambda: collector.exports, what="a try")
        leaving = time.monotonic()
    assert time.monotonic() - leaving < 5
    collector.held.set()


async def test_an_answer_without_end_is_not_read(
    bus: Bus, bus_settings: BusSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, gone = 0, asyncio.Event()

    async def on_traces(request: web.Request) -> web.StreamResponse:
        nonlocal written
        answer = web.StreamResponse()
        await answer.prepare(request)
        try:
            while True:
                await answer.write(bytes(MOST_ANSWER_BYTES))
                written += MOST_ANSWER_BYTES
        finally:
            gone.set()

    app = web.Application()
    app.router.add_post("/v1/traces", on_traces)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{runner.addresses[0][1]}")
    before = counted("accepted")
    async with telemetry(bus_settings):
        await tell(bus, "r1")
        await until(lambda: counted("accepted") > before, what="its head counts")
        await asyncio.wait_for(gone.wait(), 5)
    await runner.cleanup()
    assert written < 32 << 20, "what fits into the sockets"


async def test_two_thousand_spans_come_in_few_exports(
    bus: Bus, bus_settings: BusSettings, collector: Collector
) -> None:
    async with telemetry(bus_settings, flush_interval_ms=200):
        records = [encode(ended(f"r{number}")) for number in range(2_000)]
        await asyncio.gather(*(bus.append(REQUEST_COMPLETED, bundle(records[n : n + 20])) for n in range(0, 2_000, 20)))
        await until(lambda: len(collector.spans) >= 2_000, 20, "all spans")
    assert len(set(told(collector))) == 2_000
    assert collector.exports < 40


async def test_a_log_that_was_made_anew_is_read_from_its_end(
    bus: Bus, bus_settings: BusSettings, collector: Collector
) -> None:
    await (await bus.bucket(READERS)).put(
        f"telemetry.{PRICED}", msgspec.msgpack.encode(Position(log_id="another", seq=3))
    )
    await bus.append(USAGE_PRICED.format(shard="0"), encode(priced("history")))
    async with telemetry(bus_settings):
        await bus.append(USAGE_PRICED.format(shard="0"), encode(priced("now")))
        await until(lambda: collector.attempts, what="a span")
    assert [each.attributes["sluicegate.request.id"] for each in collector.attempts] == ["now"]
