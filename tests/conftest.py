"""Fixtures for all tests."""

import asyncio
import os
from collections.abc import Callable

import pytest
import uvloop
from hypothesis import settings

from tests.fixtures.broker import broker, bus, bus_settings

# What guards main says the same of the same code each time; new examples are looked for at every desk.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

__all__ = ["broker", "bus", "bus_settings"]


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Tests run on the loop that the services run on."""
    return {"uvloop": uvloop.new_event_loop}
