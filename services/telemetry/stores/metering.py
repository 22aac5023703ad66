"""Measurements to the receiver: the SDK adds them up and exports them by OTEL_METRIC_EXPORT_INTERVAL, in a thread of its own.

An instrument has 2,000 sets of attributes at most: what comes on top the SDK counts together.
"""

from collections.abc import Iterable
from importlib.metadata import version

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetricExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import Resource

from services.telemetry.core.measures import INSTRUMENTS, Measurement
from services.telemetry.stores.session import Answers
from shared import telemetry

STOP_MILLIS = 2_000


class _Grpc(GrpcMetricExporter):
    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: object) -> MetricExportResult:
        return _counted(super().export(metrics_data, timeout_millis, **kwargs))


class _Http(HttpMetricExporter):
    def export(
        self, metrics_data: MetricsData, timeout_millis: float | None = 10_000, **kwargs: object
    ) -> MetricExportResult:
        return _counted(super().export(metrics_data, timeout_millis, **kwargs))


def _counted(result: MetricExportResult) -> MetricExportResult:
    accepted = result is MetricExportResult.SUCCESS
    telemetry.telemetry_metric_exports.labels("accepted" if accepted else "failed").inc()
    return result


class Metering:
    def __init__(self, protocol: str, resource: Resource) -> None:
        exporter: MetricExporter = _Grpc() if protocol == "grpc" else _Http(session=Answers().session)
        reader = PeriodicExportingMetricReader(exporter)
        self._provider = MeterProvider([reader], resource, shutdown_on_exit=False)
        meter = self._provider.get_meter("sluicegate", version("sluicegate"))
        self._histograms = {
            name: meter.create_histogram(
                name, kind.unit, kind.description, explicit_bucket_boundaries_advisory=kind.bounds
            )
            for name, kind in INSTRUMENTS.items()
        }

    def record(self, measurements: Iterable[Measurement]) -> None:
        for one in measurements:
            self._histograms[one.name].record(one.value, one.attributes)

    def close(self) -> None:
        """Tells what there is once more; blocks for STOP_MILLIS at most."""
        self._provider.shutdown(timeout_millis=STOP_MILLIS)
