"""Spans to the receiver, by the SDK's exporters, in a thread: nothing waits for it but the next spans."""

import asyncio
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal, Protocol

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpanExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from services.telemetry.stores.session import Answers

Result = Literal["accepted", "failed", "refused"]
"""failed: another try may do. refused: these very spans will never be taken."""

NEVER = frozenset({400, 413, 422})


class Receiver(Protocol):
    """What takes spans."""

    async def export(self, spans: Sequence[ReadableSpan]) -> Result: ...
    def close(self) -> None: ...


class OtlpReceiver:
    """By OTEL_EXPORTER_OTLP_…, which the SDK reads. A try takes no longer than its timeout, with retries in it."""

    def __init__(self, protocol: str) -> None:
        self._answers = Answers()
        self._exporter: SpanExporter = (
            GrpcSpanExporter() if protocol == "grpc" else HttpSpanExporter(session=self._answers.session)
        )

    async def export(self, spans: Sequence[ReadableSpan]) -> Result:
        """One call at a time. In a thread that ends with the process, however long the receiver takes."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Result] = loop.create_future()

        def settle(result: Result) -> None:
            if not done.done():
                done.set_result(result)

        def work() -> None:
            result: Result = "failed"
            try:
                result = self._export(spans)
            finally:
                with suppress(RuntimeError):  # the loop has ended meanwhile, and nobody waits
                    loop.call_soon_threadsafe(settle, result)

        threading.Thread(target=work, name="export", daemon=True).start()
        return await done

    def _export(self, spans: Sequence[ReadableSpan]) -> Result:
        self._answers.status = 0
        result = self._exporter.export(spans)
        status = self._answers.status
        if status in NEVER:
            return "refused"
        # the SDK takes a redirection for success, and follows none
        return "accepted" if result is SpanExportResult.SUCCESS and not 300 <= status < 400 else "failed"

    def close(self) -> None:
        """Ends the waiting between two tries too."""
        self._exporter.shutdown()
