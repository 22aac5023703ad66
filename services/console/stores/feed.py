"""Follows what happens and hands it to every open page; a page that does not keep up is let go."""

import asyncio
import contextlib
from itertools import chain

import msgspec
import structlog

from services.console import api
from services.console.core import reports
from services.console.core.ticker import DAY, Base, Ticker
from services.console.core.views import Scopes
from services.console.stores.analytics import Analytics
from services.console.stores.balances import BalanceStore
from shared.bus import AT_LEISURE_SECONDS, Bus, Stored
from shared.clock import Clock
from shared.contracts.edge import RequestCompleted
from shared.contracts.ledger import Commit
from shared.contracts.message import Decoder
from shared.contracts.streams import LEDGER, REQUESTS
from shared.directory import Directory
from shared.errors import Unavailable

log = structlog.get_logger()

WAITING = 500  # events of one page
PAGES = 200
TICK_SECONDS = 1.0
BASE_EVERY = 10  # ticks between two questions to analytics

_completed = Decoder(RequestCompleted)
_commit = Decoder(Commit)
_encoder = msgspec.json.Encoder()


class Page:
    """One open page. events: frames to send; None ends it."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[bytes | None] = asyncio.Queue(WAITING)
        self.gone = False

    def send(self, frame: bytes | None) -> None:
        """Never waits: a full queue is a page that does not keep up."""
        try:
            self.events.put_nowait(frame)
        except asyncio.QueueFull:
            self.gone = True
            self.events.get_nowait()
            self.events.put_nowait(None)


class Feed:
    """Runs from the start of the console, so that a page finds the last requests at once."""

    def __init__(
        self, bus: Bus, directory: Directory, balances: BalanceStore, analytics: Analytics, clock: Clock
    ) -> None:
        self._bus, self._directory, self._clock = bus, directory, clock
        self._balances, self._analytics = balances, analytics
        self._ticker = Ticker()
        self._pages: set[Page] = set()
        self._arrival = asyncio.Event()
        self._last: dict[str, bytes] = {}
        self._marks: dict[str, bytes] = {}

    def open(self) -> Page:
        """A new page, with what is known already in its queue. Raises Unavailable when there are too many."""
        if len(self._pages) >= PAGES:
            raise Unavailable("live", retry_after_s=10)
        page = Page()
        for item in self._ticker.snapshot():
            page.send(frame("request", item))
        for last in self._last.values():
            page.send(last)
        self._pages.add(page)
        self._arrival.set()
        return page

    def close(self, page: Page) -> None:
        self._pages.discard(page)

    def close_all(self) -> None:
        for page in self._pages:
            page.send(None)

    async def follow_requests(self, after: int) -> None:
        async for messages in self._bus.follow(REQUESTS, after=after, gather=AT_LEISURE_SECONDS):
            for done in chain.from_iterable(_completed.decode_all(stored.data) for stored in messages):
                item = self._ticker.request(done, self._directory, self._clock())
                self._tell(frame("request", item))

    async def follow_ledger(self, after: int) -> None:
        async for messages in self._bus.follow(LEDGER, after=after, gather=AT_LEISURE_SECONDS):
            for stored in messages:
                self._priced(stored)

    def _priced(self, stored: Stored) -> None:
        for item in self._ticker.commit(_commit.decode(stored.data), stored.seq, self._directory):
            self._tell(frame("request", item))

    async def tick(self) -> None:
        """Once a second, while a page is open: balances and spend, when they changed."""
        ticks = 0
        while True:
            if self._pages:
                if ticks % BASE_EVERY == 0:
                    with contextlib.suppress(Unavailable):  # told as `complete: false`
                        await self._ask_analytics()
                ticks += 1
                self._tell_changed("spend", self._ticker.spend(self._clock()))
                await self._tell_balances()
            else:
                self._marks.clear()  # what was told before nobody looked is old news to the next page
                self._last.clear()
                ticks = 0
            await self._next_tick()

    async def _next_tick(self) -> None:
        """In a second, or now for a page that has just come."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TICK_SECONDS):
                await self._arrival.wait()
        self._arrival.clear()

    async def _ask_analytics(self) -> None:
        now = self._clock()
        day = now - now % DAY
        row = (await self._analytics.rows(reports.spent_since(day)))[0]
        cost, seq = row["cost"], row["seq"]
        assert isinstance(cost, int)
        assert isinstance(seq, int)
        self._ticker.known_by_analytics(Base(day, cost, seq), now)

    async def _tell_balances(self) -> None:
        try:
            found = await self._balances.all()
        except Unavailable as error:
            self._tell_changed("trouble", {"service": "budget", "message": str(error)})
            return
        self._tell_changed("trouble", {"service": "", "message": ""})
        scopes, now = Scopes(self._directory), self._clock()
        items = tuple(scopes.item(balance, now) for balance in found.items)
        # the forecast moves with every second; it alone is no news
        still = tuple(msgspec.structs.replace(item, forecast_nano_usd=None) for item in items)
        answer = api.Budgets(items=items, next_cursor="", config_rev=found.config_rev)
        self._tell_changed("balances", answer, same_as=_encoder.encode(still))

    def _tell_changed(self, event: str, value: object, same_as: bytes = b"") -> None:
        now = frame(event, value)
        mark = same_as or now
        if self._marks.get(event) != mark:
            self._marks[event], self._last[event] = mark, now
            self._tell(now)

    def _tell(self, told: bytes) -> None:
        for page in list(self._pages):
            page.send(told)
            if page.gone:
                log.info("console.page_too_slow")
                self._pages.discard(page)


def frame(event: str, value: object) -> bytes:
    """One server-sent event."""
    return b"event: %s\ndata: %s\n\n" % (event.encode(), _encoder.encode(value))
