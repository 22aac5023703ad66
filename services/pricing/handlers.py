"""The shell: USAGE in, PRICED out, in order, from where the last PRICED message says we stopped."""

import asyncio
from collections.abc import Iterator, Sequence
from itertools import chain

import msgspec
import structlog

from services.pricing import core
from services.pricing.settings import Settings
from services.pricing.stores import PricedLog, publish_book
from shared import clock, telemetry
from shared.bus import Bus, Stored
from shared.bus.behind import tell_behind
from shared.bus.config import ConfigFollower
from shared.contracts.config import ConfigChanged
from shared.contracts.edge import UsageRecorded
from shared.contracts.message import Decoder, unbundled
from shared.contracts.pricing import PriceBook, UsagePriced
from shared.contracts.streams import USAGE, Position
from shared.rates import Book, Overrides

log = structlog.get_logger()

_usage = Decoder(UsageRecorded)


class Pricer:
    """Prices every usage record once. `started` is set when the book is published and the position found."""

    def __init__(self, bus: Bus, book: PriceBook, settings: Settings, incarnation: str) -> None:
        self.started = asyncio.Event()
        self.config = ConfigFollower(bus, self._on_config)
        self._bus = bus
        self._packaged = book
        self._settings = settings
        self._log = PricedLog(bus, incarnation, settings.window_records)
        self._overrides: dict[str, Overrides] = {}
        self._waived_rev = 0
        self._usage_seq = 0

    async def run(self) -> None:
        """For ever; ends with Overtaken when another pricing process writes."""
        published = await publish_book(self._bus, self._packaged)
        book = Book(published)
        await self.config.caught_up()
        log_id = (await self._bus.end(USAGE)).log_id
        after = await self._log.resume(log_id)
        self._usage_seq = after
        telemetry.pricing_book_published.set(_unix_time(published.published_at))
        log.info("pricing.resumed", usage_seq=after, price_version=book.version)
        self.started.set()
        async for messages in self._bus.follow(USAGE, after=after):
            await self._price(messages, log_id, book)

    async def tell_behind(self) -> None:
        """For ever; start it as a task."""
        await self.started.wait()
        await tell_behind(self._bus, "pricing", USAGE, lambda: self._usage_seq)

    async def _price(self, messages: Sequence[Stored], log_id: str, book: Book) -> None:
        priced: list[list[UsagePriced]] = []  # a list for each message of USAGE
        for stored in messages:
            entries = []
            for usage in _decoded(stored):
                await self._admitted_under(usage.config_rev)
                entries.append(self._priced(usage, Position(log_id=log_id, seq=stored.seq), book))
            if entries:
                priced.append(entries)
        await self._log.append(priced)
        self._usage_seq = messages[-1].seq
        # after the append: what a crash repeats is counted and told once more, never left out
        telemetry.pricing_records.inc(sum(map(len, priced)))
        for entry in chain.from_iterable(priced):
            _raise_alert(entry)

    def _priced(self, usage: UsageRecorded, usage_at: Position, book: Book) -> UsagePriced:
        directory, org = self.config.directory, usage.principal.org
        if org not in self._overrides:
            self._overrides[org] = Overrides(directory.prices(org))
        terms = core.terms_of(usage, directory.provider(usage.provider))
        return core.priced(usage, usage_at, terms, book, self._overrides[org])

    async def _admitted_under(self, config_rev: int) -> None:
        """Wait for the organisation the record was admitted under, so that its overrides are known; not for ever.

        A revision that does not come (CONFIG was made anew) is waited for once and then waived up to there.
        """
        if config_rev <= max(self.config.directory.config_rev, self._waived_rev):
            return
        try:
            async with asyncio.timeout(self._settings.config_wait_seconds):
                await self.config.reached(config_rev)
        except TimeoutError:
            self._waived_rev = config_rev
            log.error("pricing.config_behind", wanted=config_rev, config_rev=self.config.directory.config_rev)

    def _on_config(self, change: ConfigChanged) -> None:
        self._overrides.clear()


def _unix_time(instant: str) -> float:
    """0 for what is no instant: nothing is priced by it."""
    try:
        return clock.parse(instant) / 1_000_000
    except ValueError:
        return 0.0


def _decoded(stored: Stored) -> Iterator[UsageRecorded]:
    """Without bytes that are no usage record: told and left out, since they would hold up everybody's money for ever;
    the owner of the hold books it when it expires. A newer major version ends the process instead (UnknownVersion).
    """
    try:
        messages = unbundled(stored.data)
    except msgspec.DecodeError:
        messages = [stored.data]  # for the one below to tell
    for data in messages:
        try:
            yield _usage.decode(data)
        except msgspec.DecodeError:
            telemetry.pricing_undecodable.inc()
            log.exception("pricing.usage_undecodable", seq=stored.seq, bytes=len(data))


def _raise_alert(entry: UsagePriced) -> None:
    found = core.alert(entry)
    if found is None:
        return
    telemetry.pricing_unpriced.inc()
    log.warning(
        "pricing.unpriced",
        rid=entry.usage.rid,
        org=entry.usage.principal.org,
        provider=entry.usage.provider,
        lines=[f"{model}/{meter}" for model, meter in found.lines],
        unknown_counters=found.counters,
        cost_nano_usd=entry.cost_nano_usd,
        price_version=entry.price_version,
    )
