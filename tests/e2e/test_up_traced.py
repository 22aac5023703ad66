"""`sluicegate up` with a receiver of OTLP: each request becomes a trace below its caller's span."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.fixtures.otlp import Collector, over_grpc, over_http
from tests.fixtures.up import Up, running
from tests.fixtures.waiting import until

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
MESSAGE = {
    "model": "claude-haiku-5-5",
    "max_tokens": 64,
    "messages": [{"role": "user", "content": "hello, secret words"}],
}


@asynccontextmanager
async def grpc_of(collector: Collector) -> AsyncIterator[int]:
    with over_grpc(collector) as port:
        yield port


def listening(collector: Collector, protocol: str) -> AbstractAsyncContextManager[int]:
    return grpc_of(collector) if protocol == "grpc" else over_http(collector)


async def ask(up: Up, **headers: str) -> int:
    own = {"authorization": f"Bearer {up.first_key}", "anthropic-version": "2023-06-01"}
    async with (
        aiohttp.ClientSession(headers=own | headers) as session,
        session.post(f"{up.base_url}/v1/messages", json=MESSAGE | {"stream": True}) as answer,
    ):
        await answer.read()
        return answer.status


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
async def test_a_request_becomes_a_trace_below_the_caller_s_span(tmp_path: Path, protocol: str) -> None:
    collector = Collector()
    async with listening(collector, protocol) as port:
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_METRIC_EXPORT_INTERVAL": "500",
        }
        async with running(tmp_path, environ=environ) as up:
            assert await ask(up, traceparent=f"00-{'a' * 32}-{PARENT}-00") == 200, "its caller records nothing"
            assert await ask(up, **{"x-simulator": "status=529"}) == 529
            assert await ask(up, traceparent=f"00-{TRACE}-{PARENT}-01") == 200
            await until(lambda: _last_came(collector), 30, "both spans of the last request, and so all before it")
            if protocol != "grpc":  # the receiver by gRPC takes traces alone
                wanted = {"gen_ai.client.token.usage", "gen_ai.client.operation.duration"}
                await until(lambda: collector.metrics >= wanted, 30, "metrics")
    judge(collector)


def _last_came(collector: Collector) -> bool:
    return all(any(each.trace_id == TRACE for each in kind) for kind in (collector.requests, collector.attempts))


def judge(collector: Collector) -> None:
    joined, failed = sorted(collector.requests, key=lambda each: each.trace_id != TRACE)
    assert (joined.trace_id, joined.parent_id) == (TRACE, PARENT)
    [attempt] = [each for each in collector.attempts if each.trace_id == TRACE]
    assert attempt.parent_id == joined.span_id
    assert joined.span.start_time_unix_nano <= attempt.span.start_time_unix_nano
    assert attempt.span.end_time_unix_nano <= joined.span.end_time_unix_nano
    found = attempt.attributes
    assert attempt.span.name == "chat claude-haiku-5-5"
    assert found["gen_ai.usage.output_tokens"] > 0
    assert found["sluicegate.cost_nano_usd"] > 0
    assert found["server.address"] == "127.0.0.1"
    assert not failed.parent_id
    broken = [each for each in collector.attempts if each.trace_id == failed.trace_id]
    assert {each.attributes["error.type"] for each in broken} == {"overloaded_error"}
    assert {each.parent_id for each in broken} == {failed.span_id}
    assert "secret words" not in str([each.span for each in collector.spans])
