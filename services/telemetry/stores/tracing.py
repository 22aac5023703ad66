"""Spans as the SDK has them: sampled by OTEL_TRACES_SAMPLER, cut by the SDK's limits, told by its resource."""

from importlib.metadata import version

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from services.telemetry.core.spans import Span

KINDS = {"server": SpanKind.SERVER, "client": SpanKind.CLIENT}
UNKNOWN_SPAN = 1  # stands for the caller's where only its trace is known; it is never told


def resource() -> Resource:
    """OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win."""
    own = Resource.create({"service.name": "sluicegate", "service.version": version("sluicegate")})
    return own.merge(OTELResourceDetector().detect())


class _GivenIds(IdGenerator):
    """The ids are known before the span is made."""

    trace_id = 0
    span_id = 0

    def generate_trace_id(self) -> int:
        return self.trace_id

    def generate_span_id(self) -> int:
        return self.span_id

    def is_trace_id_random(self) -> bool:
        return True  # hashes are, to whom they are unknown


class _Ended(SpanProcessor):
    """Keeps the last span that ended; there is never more than one."""

    span: ReadableSpan | None = None

    def on_end(self, span: ReadableSpan) -> None:
        self.span = span


class Tracing:
    """Not for several threads at once."""

    def __init__(self, resource: Resource) -> None:
        self._ids, self._ended = _GivenIds(), _Ended()
        self._provider = TracerProvider(resource=resource, id_generator=self._ids, shutdown_on_exit=False)
        self._provider.add_span_processor(self._ended)
        self._tracer = self._provider.get_tracer("sluicegate", version("sluicegate"))

    def made(self, span: Span) -> ReadableSpan | None:
        """None where the sampler leaves it out."""
        self._ended.span = None
        above = _caller(span)
        if span.kind == "client":
            # the span of its request, which is told by itself, is started anew here: what the sampler says of it counts below
            above = trace.set_span_in_context(self._started(span, span.request_span_id, above), Context())
        started = self._started(span, span.span_id, above)
        for event in span.events:
            started.add_event(event.name, timestamp=event.at_ns)
        if span.error:
            started.set_status(Status(StatusCode.ERROR))
        started.end(end_time=span.end_ns)
        return self._ended.span

    def _started(self, span: Span, span_id: int, above: Context) -> trace.Span:
        self._ids.trace_id, self._ids.span_id = span.trace_id, span_id
        return self._tracer.start_span(
            span.name, above, kind=KINDS[span.kind], attributes=span.attributes, start_time=span.start_ns
        )


def _caller(span: Span) -> Context:
    """Where the request came from: its sampler's word counts, and the request's span stands below its span."""
    caller = span.caller
    if caller is None or (span.kind == "server" and not caller.span_id):
        return Context()
    flags = TraceFlags(TraceFlags.SAMPLED if caller.sampled else TraceFlags.DEFAULT)
    known = SpanContext(caller.trace_id, caller.span_id or UNKNOWN_SPAN, is_remote=True, trace_flags=flags)
    return trace.set_span_in_context(NonRecordingSpan(known), Context())
