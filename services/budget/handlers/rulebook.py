"""Keeps the rules current: the organisation from CONFIG, the prices from PRICES."""

import asyncio
from collections.abc import Mapping

import msgspec
import structlog

from services.budget.core.admission import Rules
from services.budget.core.limits import Catalogue
from services.budget.core.luggage import Stay
from services.budget.core.tariff import Tariff
from shared.bus import Bus
from shared.bus.config import ConfigFollower
from shared.contracts.config import PriceOverride
from shared.contracts.message import Decoder
from shared.contracts.pricing import PRICES_BOOK, PriceBook, PriceBookPublished
from shared.contracts.streams import PRICES
from shared.rates import Book

log = structlog.get_logger()

_published = Decoder(PriceBookPublished)
_book = msgspec.json.Decoder(PriceBook)


class Rulebook:
    """Of one shard. `current` makes the rules anew only when something has changed; `changed` is set then.

    stays: of the state that is decided on.
    """

    def __init__(self, bus: Bus, shard: str) -> None:
        self._shard = shard
        self.config = ConfigFollower(bus, lambda _: self._changed())
        self.changed = asyncio.Event()
        self._bus = bus
        self._book: Book | None = None
        self._priced = asyncio.Event()
        self._rules: Rules | None = None
        self.stays: Mapping[str, Stay] = {}

    async def follow_prices(self) -> None:
        """For ever; start it as a task."""
        async for messages in self._bus.follow(PRICES, PRICES_BOOK):
            published = _published.decode(messages[-1].data)
            try:
                self._book = Book(_book.decode(published.book))
            except (ValueError, msgspec.DecodeError) as error:
                log.error("budget.price_book_refused", version=published.version, reason=str(error))
                continue
            log.info("budget.price_book_taken", version=published.version)
            self._changed()
            self._priced.set()

    async def complete(self) -> None:
        """Return once CONFIG is caught up with and there is a price book; without one nothing can be held."""
        await self.config.caught_up()
        if not self._priced.is_set():
            log.info("budget.waiting_for_price_book")
        await self._priced.wait()

    def has_reached(self, config_rev: int) -> bool:
        """Whether this revision can be decided by."""
        return self.config.directory.config_rev >= config_rev

    async def reached(self, config_rev: int) -> None:
        """Return once it can."""
        if not self.has_reached(config_rev):
            await self.config.reached(config_rev)

    def _changed(self) -> None:
        self._rules = None
        self.changed.set()

    def moved(self) -> None:
        """An organisation has come or gone."""
        self._changed()

    def current(self) -> Rules:
        """The rules as of now. They change between two calls only when control was given up in between."""
        if self._rules is None:
            assert self._book is not None, "complete() comes first"
            directory = self.config.directory
            catalogue = Catalogue(directory, self._shard, self.stays)
            prices = tuple(entity for entity in directory.entities.values() if isinstance(entity, PriceOverride))
            self._rules = Rules(catalogue, Tariff(self._book, prices))
            log.info("budget.rules_taken", config_rev=catalogue.config_rev, budgets=len(catalogue.limits))
            if catalogue.not_enforced:
                log.warning("budget.not_enforced_yet", features=sorted(catalogue.not_enforced))
        return self._rules
