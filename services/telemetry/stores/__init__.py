"""The receiver of OTLP by OpenTelemetry's SDK, and on the bus how far was read."""
