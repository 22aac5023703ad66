"""Telemetry: what the records tell, as traces and metrics for a receiver of OTLP."""
