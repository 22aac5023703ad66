"""The shell: REQUESTS and PRICED in, spans and measurements out. A record that cannot be told is dropped, and counted."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

import msgspec
import structlog
from opentelemetry.sdk.trace import ReadableSpan

from services.telemetry.core.keeping import resume, young
from services.telemetry.core.measures import measurements
from services.telemetry.core.spans import Address, Span, address, attempt_span, request_span
from services.telemetry.settings import Settings
from services.telemetry.stores.metering import Metering
from services.telemetry.stores.positions import Positions
from services.telemetry.stores.receiver import Receiver
from services.telemetry.stores.tracing import Tracing
from shared.bus import Bus, Stored
from shared.bus.behind import tell_behind
from shared.bus.config import ConfigFollower
from shared.clock import Clock
from shared.contracts.edge import RequestCompleted
from shared.contracts.message import Decoder, UnknownVersion, unbundled
from shared.contracts.pricing import UsagePriced
from shared.contracts.streams import Position
from shared.errors import Unavailable
from shared.telemetry import telemetry_exports, telemetry_spans

log = structlog.get_logger()

LISTED = 50  # messages read at once; each may be a bundle of many records
EXPORTED = 500  # spans of one export at most
RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 20.0)
LOG_CHECK_SECONDS = 10.0

_completed = Decoder(RequestCompleted)
_priced = Decoder(UsagePriced)

Convert = Callable[[bytes], Span | None]


class LogReplaced(RuntimeError):
    """The stream was made anew while it was followed; the next start begins at the end of the new one."""


class Converter:
    """Records as spans; what they measure is recorded on the way."""

    def __init__(self, config: ConfigFollower, metering: Metering | None) -> None:
        self._config, self._metering = config, metering
        self._addresses: dict[str, Address | None] = {}

    def request(self, data: bytes) -> Span:
        return request_span(_completed.decode(data))

    def attempt(self, data: bytes) -> Span | None:
        priced = _priced.decode(data)
        provider = self._config.directory.provider(priced.usage.provider)
        server = self._address(provider.base_url) if provider else None
        if self._metering:
            self._metering.record(measurements(priced, server))
        return attempt_span(priced, server)

    def _address(self, base_url: str) -> Address | None:
        if base_url not in self._addresses:
            self._addresses[base_url] = address(base_url)
        return self._addresses[base_url]


class Delivery:
    """Spans to the receiver, tried again while they are young. Its health is told once when it changes."""

    def __init__(self, receiver: Receiver, settings: Settings, clock: Clock) -> None:
        self._receiver, self._settings, self._clock = receiver, settings, clock
        self._one = asyncio.Lock()  # of both readers
        self._failures = 0

    async def deliver(self, spans: Sequence[ReadableSpan]) -> None:
        """Return when nothing more is to be done for them: taken, refused, or too old."""
        async with self._one:
            if self._failures:
                spans = self._without_old(spans)
            while spans:
                result = await self._receiver.export(spans)
                telemetry_exports.labels(result).inc()
                if result != "failed":
                    self._count(result, len(spans))
                    return
                self._failed()
                await asyncio.sleep(RETRY_SECONDS[min(self._failures, len(RETRY_SECONDS)) - 1])
                spans = self._without_old(spans)

    def _count(self, result: str, spans: int) -> None:
        telemetry_spans.labels(result).inc(spans)
        if result == "refused":
            log.warning("telemetry.spans_refused", spans=spans)
        elif self._failures:
            log.info("telemetry.receiver_back", failures=self._failures)
        self._failures = 0

    def _failed(self) -> None:
        if not self._failures:
            log.warning("telemetry.receiver_away", keep_seconds=self._settings.keep_seconds)
        self._failures += 1

    def _without_old(self, spans: Sequence[ReadableSpan]) -> Sequence[ReadableSpan]:
        ends = [span.end_time or 0 for span in spans]
        kept = [spans[index] for index in young(ends, self._clock(), self._settings.keep_seconds)]
        if dropped := len(spans) - len(kept):
            telemetry_spans.labels("dropped").inc(dropped)
        return kept


class Reader:
    """Follows one log. `position`: all up to there is told, or dropped."""

    def __init__(
        self, bus: Bus, stream: str, convert: Convert, tracing: Tracing | None, delivery: Delivery, settings: Settings
    ) -> None:
        self._bus, self._stream, self._convert = bus, stream, convert
        self._tracing, self._delivery, self._settings = tracing, delivery, settings
        self._positions = Positions(bus, "telemetry")
        self._stored = self.position = Position()
        self._unreadable = False

    async def begin(self) -> None:
        """Find where to read on. Raises Unavailable."""
        stored, end = await self._positions.load(self._stream), await self._bus.end(self._stream)
        found = resume(stored, end)
        if found.missed:
            log.warning("telemetry.log_replaced", stream=self._stream)
        self.position = found.position
        await self._positions.store(self._stream, self.position)
        self._stored = self.position
        log.info("telemetry.resumed", stream=self._stream, after=self.position.seq, end=end.seq)

    def works(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """For ever, after `begin`; start each as a task. No group of tasks: it passes a cancellation on once, and a work
        whose bus client swallows that one (see `shared.service.end`) would never hear of it again.
        """
        behind = tell_behind(self._bus, "telemetry", self._stream, lambda: self.position.seq)
        return self._read(), self._keep(), self._check(), behind

    async def _read(self) -> None:
        pause = self._settings.flush_interval_ms / 1_000
        async for messages in self._bus.follow(self._stream, after=self.position.seq, batch=LISTED, gather=pause):
            spans = (made for stored in messages for made in self._made(stored))
            while export := list(islice(spans, EXPORTED)):
                await self._delivery.deliver(export)
            self.position = Position(log_id=self.position.log_id, seq=messages[-1].seq)

    def _made(self, stored: Stored) -> Iterator[ReadableSpan]:
        """Of what the sampler takes."""
        for record in self._records(stored):
            span = self._span(stored.seq, record)
            made = self._tracing.made(span) if span and self._tracing else None
            if made:
                yield made
            elif span and self._tracing:
                telemetry_spans.labels("not_sampled").inc()

    def _records(self, stored: Stored) -> list[bytes]:
        try:
            return unbundled(stored.data)
        except msgspec.DecodeError as error:
            self._left_out(stored.seq, error)
            return []

    def _span(self, seq: int, record: bytes) -> Span | None:
        """None for what is no record, too: nobody's money waits for it, so it is left out."""
        try:
            return self._convert(record)
        except (msgspec.DecodeError, UnknownVersion) as error:
            self._left_out(seq, error)
            return None

    def _left_out(self, seq: int, error: Exception) -> None:
        telemetry_spans.labels("unreadable").inc()
        if not self._unreadable:
            log.warning("telemetry.unreadable", stream=self._stream, seq=seq, reason=str(error))
        self._unreadable = True

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._settings.position_interval_ms / 1_000)
            await self.keep()

    async def keep(self) -> None:
        """Store how far it has read. What a crash or an absent broker loses of that is told once more, by the same ids."""
        position = self.position
        if position != self._stored:
            with suppress(Unavailable):
                await self._positions.store(self._stream, position)
                self._stored = position

    async def _check(self) -> None:
        """A reader of a log that was made anew would wait in silence for a sequence that is far away."""
        while True:
            await asyncio.sleep(LOG_CHECK_SECONDS)
            with suppress(Unavailable):
                if (await self._bus.end(self._stream)).log_id != self.position.log_id:
                    raise LogReplaced(self._stream)
