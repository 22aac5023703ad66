"""What the live page is told: requests as they come, joined with their entries in the ledger, and the spend of now."""

from collections import OrderedDict, deque
from typing import NamedTuple

import msgspec

from services.console import api
from shared.clock import rfc3339
from shared.contracts.config import Key
from shared.contracts.edge import RequestCompleted
from shared.contracts.ledger import Commit, Entry
from shared.contracts.message import Micros
from shared.directory import Directory

REMEMBERED = 1_000  # requests; a late entry of an older one is in the list of requests, not on the ticker
SNAPSHOT = 50
MINUTE: Micros = 60_000_000
DAY: Micros = 86_400_000_000
MOST_BOOKINGS = 200_000  # of a minute, and of what analytics has not yet written

METERS = {
    "input": ("input_tokens",),
    "cache_write_5m": ("cache_write_5m_tokens",),
    "cache_write_1h": ("cache_write_1h_tokens",),
    "cache_read": ("cache_read_tokens",),
    "output": ("output_tokens",),
    "thinking": ("output_tokens", "thinking_tokens"),
    "web_search": ("web_search_requests",),
}
"""Meters and the counts they are part of: people mean by output what providers do, thinking included."""


class Spend(api.Answer, frozen=True, kw_only=True):
    """today: since midnight UTC. complete: False while analytics is away and only what was seen passing is counted."""

    today_nano_usd: int
    minute_nano_usd: int
    minute_requests: int
    minute_tokens: int
    complete: bool


class Booking(NamedTuple):
    """One entry's money; seq: of its record in LEDGER."""

    seq: int
    at: Micros
    booked_at: Micros
    cost_nano_usd: int
    tokens: int


class Base(NamedTuple):
    """What analytics knows of a day: everything up to seq."""

    day: Micros
    cost_nano_usd: int
    seq: int


class _Told:
    __slots__ = ("estimated", "item", "model", "provider", "rids", "sums")

    def __init__(self) -> None:
        self.item: api.RequestItem | None = None
        self.sums: dict[str, int] = {}
        self.rids: set[str] = set()
        self.model = ""
        self.provider = ""
        self.estimated = False


class Ticker:
    """Folds REQUESTS and LEDGER; bounded in memory. Instants are handed in."""

    def __init__(self) -> None:
        self._told: OrderedDict[str, _Told] = OrderedDict()
        self._bookings: deque[Booking] = deque(maxlen=MOST_BOOKINGS)
        self._arrivals: deque[Micros] = deque(maxlen=MOST_BOOKINGS)
        self.base: Base | None = None

    def request(self, done: RequestCompleted, directory: Directory, now: Micros) -> api.RequestItem:
        """The first news of a request; its price may follow."""
        told = self._of(done.request_id)
        if told.item is None:
            self._arrivals.append(now)
        told.item = _item(done, directory)
        return self._current(told)

    def commit(self, commit: Commit, seq: int, directory: Directory) -> list[api.RequestItem]:
        """Requests that this record of LEDGER puts a price on."""
        touched: dict[str, _Told] = {}
        for event in commit.events:
            if isinstance(event, Entry):
                told = self._book(event, seq, directory)
                touched[event.usage.usage.request_id] = told
        return [self._current(told) for told in touched.values() if told.item is not None]

    def _book(self, entry: Entry, seq: int, directory: Directory) -> _Told:
        usage = entry.usage.usage
        told = self._of(usage.request_id)
        told.rids.add(usage.rid)
        told.model = usage.response_model or usage.wire_model or told.model
        told.provider = directory.name(usage.provider) or told.provider
        told.estimated = told.estimated or usage.estimated
        tokens = 0
        for priced in entry.usage.lines:
            names = METERS.get(priced.line.meter, ())
            for name in names:
                _add(told.sums, name, priced.line.quantity)
            tokens += priced.line.quantity if names and names[0].endswith("_tokens") else 0
        for name in ("list_nano_usd", "cost_nano_usd", "charge_nano_usd"):
            _add(told.sums, name, getattr(entry.usage, name))
        at = entry.admitted_at or usage.sent_at or usage.closed_at or entry.booked_at
        self._bookings.append(Booking(seq, at, entry.booked_at, entry.usage.cost_nano_usd, tokens))
        return told

    def _of(self, request_id: str) -> _Told:
        told = self._told.setdefault(request_id, _Told())
        self._told.move_to_end(request_id)
        while len(self._told) > REMEMBERED:
            self._told.popitem(last=False)
        return told

    def _current(self, told: _Told) -> api.RequestItem:
        assert told.item is not None
        return msgspec.structs.replace(
            told.item,
            model=told.model or told.item.model,
            provider=told.provider or told.item.provider,
            estimated=told.estimated,
            priced=len(told.rids) >= told.item.attempts,
            **told.sums,
        )

    def snapshot(self) -> list[api.RequestItem]:
        """The latest requests, oldest first, for a page that has just come."""
        known = [told for told in self._told.values() if told.item is not None]
        return sorted((self._current(told) for told in known[-SNAPSHOT:]), key=lambda item: item.received_at)

    def spend(self, now: Micros) -> Spend:
        """Today by analytics as far as its rows go, then by what was seen since."""
        day = now - now % DAY
        base = self.base if self.base and self.base.day == day else None
        seen = sum(b.cost_nano_usd for b in self._bookings if b.at >= day and b.seq > (base.seq if base else 0))
        recent = [b for b in self._bookings if b.booked_at > now - MINUTE]
        while self._arrivals and self._arrivals[0] <= now - MINUTE:
            self._arrivals.popleft()
        return Spend(
            today_nano_usd=(base.cost_nano_usd if base else 0) + seen,
            minute_nano_usd=sum(b.cost_nano_usd for b in recent),
            minute_requests=len(self._arrivals),
            minute_tokens=sum(b.tokens for b in recent),
            complete=base is not None,
        )

    def known_by_analytics(self, base: Base, now: Micros) -> None:
        """Forget what its rows have and the last minute does not need."""
        self.base = base
        while self._bookings and self._bookings[0].seq <= base.seq and self._bookings[0].booked_at <= now - MINUTE:
            self._bookings.popleft()


def _add(sums: dict[str, int], name: str, amount: int) -> None:
    sums[name] = sums.get(name, 0) + amount


def _item(done: RequestCompleted, directory: Directory) -> api.RequestItem:
    key = directory.entities.get(done.principal.key)
    return api.RequestItem(
        request_id=done.request_id,
        received_at=rfc3339(done.received_at or done.admitted_at or done.closed_at),
        customer=directory.name(done.principal.customer),
        team=directory.name(done.principal.team),
        key=directory.name(done.principal.key),
        key_uid=done.principal.key,
        owner=key.owner if isinstance(key, Key) else "",
        model=done.wire_model or done.request_model,
        provider=directory.name(done.provider),
        operation=done.operation,
        session=done.session,
        verdict=done.verdict,
        reason=done.reason,
        budget_id=done.budget_id,
        status=done.status,
        error_type=done.error_type,
        message=done.message,
        outcome=done.outcome,
        stream=done.stream,
        attempts=len(done.attempts),
        priced=not done.attempts,
        estimated=False,
        cost_nano_usd=0,
        charge_nano_usd=0,
        list_nano_usd=0,
        ttft_ms=done.ttft_ms,
        duration_ms=done.duration_ms,
    )
