"""Tells how far a reader is behind its log, as metrics. Read from the log's end: a reader that hangs cannot hide it."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from shared import telemetry
from shared.bus.connection import Bus
from shared.errors import Unavailable
from shared.lag import Lag

LOOK_SECONDS = 5.0


async def tell_behind(
    bus: Bus, service: str, log: str, position: Callable[[], int], *, subject: str = "", shard: str = ""
) -> None:
    """For ever; start it as a task beside the reader. position: the last sequence dealt with. subject: all it reads of the log.

    While the broker is away the last known end counts.
    """
    seconds = telemetry.log_behind_seconds.labels(service, log, shard)
    records = telemetry.log_behind_records.labels(service, log, shard)
    lag, end = Lag(), 0
    try:
        while True:
            with suppress(Unavailable):  # told by other metrics; what was seen before goes on getting older
                end = await _end(bus, log, subject)
            seconds.set(lag.look(end, position(), time.monotonic()))
            records.set(max(0, end - position()))
            await asyncio.sleep(LOOK_SECONDS)
    finally:
        seconds.set(0)  # whoever reads on from here tells it
        records.set(0)


async def _end(bus: Bus, log: str, subject: str) -> int:
    if not subject:
        return (await bus.end(log)).seq
    last = await bus.last(log, subject)
    return last.seq if last else 0
