"""What telemetry can be told: by prefix TELEMETRY_, and where to send by OpenTelemetry's own OTEL_ variables."""

from collections.abc import Mapping
from typing import Annotated

import msgspec

from shared.bus import BusSettings
from shared.settings import SettingsError

PROTOCOLS = {"http/protobuf": "http/protobuf", "http/json": "http/protobuf", "grpc": "grpc"}
"""As told, and as spoken: who takes JSON takes the other at the same address."""

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Positive = Annotated[int, msgspec.Meta(gt=0)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """keep_seconds: how old a span may become while the receiver is away; then it is dropped and counted.

    flush_interval_ms: how long spans wait for company. position_interval_ms: how often to store how far was read.
    """

    bus: BusSettings = BusSettings()
    http_host: str = "127.0.0.1"
    http_port: Port = 0
    ready_file: str = ""
    log_level: str = "info"
    keep_seconds: Positive = 600
    flush_interval_ms: Positive = 1_000
    position_interval_ms: Positive = 1_000


class Signals(msgspec.Struct, frozen=True):
    """By which protocol traces and metrics go; empty: not at all."""

    traces: str
    metrics: str


def signals(environ: Mapping[str, str]) -> Signals:
    """Metrics go where there is an endpoint for them, traces always. Raises SettingsError naming the variable."""
    metrics = environ.get("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    return Signals(
        traces=_protocol(environ, "TRACES") if _wanted(environ, "OTEL_TRACES_EXPORTER") else "",
        metrics=_protocol(environ, "METRICS") if metrics and _wanted(environ, "OTEL_METRICS_EXPORTER") else "",
    )


def _wanted(environ: Mapping[str, str], variable: str) -> bool:
    """There is one exporter here; whoever names others and not this one wants none of it."""
    return "otlp" in (environ.get(variable) or "otlp").replace(" ", "").split(",")


def _protocol(environ: Mapping[str, str], signal: str) -> str:
    for variable in (f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if found := environ.get(variable, "").strip():
            if found not in PROTOCOLS:
                raise SettingsError(f"{variable}: {found} is not among {', '.join(PROTOCOLS)}")
            return PROTOCOLS[found]
    return "http/protobuf"
