"""Fixtures for all tests."""

from tests.fixtures.broker import broker, bus, bus_settings

__all__ = ["broker", "bus", "bus_settings"]
