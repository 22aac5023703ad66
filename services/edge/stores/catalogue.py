"""The price book as the edge uses it: to list models. Prices themselves are none of its business."""

import msgspec
import structlog

from shared.bus import Bus
from shared.contracts.message import Decoder
from shared.contracts.pricing import PriceBook, PriceBookPublished, RateCard
from shared.contracts.streams import PRICES

log = structlog.get_logger()

_published = Decoder(PriceBookPublished)
_book = msgspec.json.Decoder(PriceBook)


class Catalogue:
    """cards: of the newest book; empty until one has come."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.cards: tuple[RateCard, ...] = ()

    async def run(self) -> None:
        """For ever; start it as a task."""
        async for messages in self._bus.follow(PRICES):
            try:
                self.cards = _book.decode(_published.decode(messages[-1].data).book).cards
            except msgspec.DecodeError as error:
                log.warning("edge.price_book_unreadable", reason=str(error))
