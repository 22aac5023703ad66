"""Metrics as text for Prometheus, written in slices: a scrape of thousands of series must not stop the event loop."""

import asyncio
from collections.abc import Iterator

from prometheus_client import REGISTRY, CollectorRegistry, Metric, disable_created_metrics, generate_latest

SLICE = 200
"""Samples written between two turns of the loop: about a millisecond."""

# When a counter began nobody asks, and it would double what is written.
disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no types


async def exposition(registry: CollectorRegistry = REGISTRY) -> bytes:
    """What `generate_latest` gives, and not in a thread: uvloop's callbacks would each wait for that one to let go."""
    written = []
    for metric in registry.collect():
        for start in range(0, max(1, len(metric.samples)), SLICE):
            part = generate_latest(_Part(metric, start))
            written.append(part if start == 0 else part.split(b"\n", 2)[2])  # HELP and TYPE stand once
            await asyncio.sleep(0)
    return b"".join(written)


class _Part(CollectorRegistry):
    """A registry of one slice of one metric."""

    def __init__(self, metric: Metric, start: int) -> None:
        super().__init__()
        self._part = Metric(metric.name, metric.documentation, metric.type, metric.unit)
        self._part.samples = metric.samples[start : start + SLICE]

    def collect(self) -> Iterator[Metric]:
        yield self._part
