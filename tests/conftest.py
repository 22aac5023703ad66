"""Fixtures for all tests."""

import asyncio
import os
from collections.abc import Callable

import pytest
import uvloop
from hypothesis import HealthCheck, settings

from tests.fixtures.broker import broker, bus, bus_settings

# What guards main says the same of the same code each time; new examples are looked for at every desk. How long an
# example takes says how busy the machine is, and nothing of the code.
settings.register_profile("desk", suppress_health_check=[HealthCheck.too_slow], deadline=None)
settings.register_profile("ci", settings.get_profile("desk"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "desk")

__all__ = ["broker", "bus", "bus_settings"]

LONG = ("e2e", "observability")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where two share the work (`make test`), the long files first: the short ones let both end together."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.path.parent.name not in LONG)


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Tests run on the loop that the services run on."""
    return {"uvloop": uvloop.new_event_loop}
