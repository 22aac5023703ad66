"""Fixtures for all tests."""

import asyncio
from collections.abc import Callable

import pytest
import uvloop

from tests.fixtures.broker import broker, bus, bus_settings

__all__ = ["broker", "bus", "bus_settings"]


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Tests run on the loop that the services run on."""
    return {"uvloop": uvloop.new_event_loop}
