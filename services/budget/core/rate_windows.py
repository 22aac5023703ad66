"""What counts towards rate limits: part of the fold of the ledger, so that no restart forgets or doubles a request.

A Held event names the limits that its attempt counts on (`Held.rates`), so nothing is counted where nothing is limited and
a replay does not depend on CONFIG. A client request is one `request_id`, however many attempts it takes.
"""

from functools import lru_cache

import msgspec

from shared.contracts.ledger import Entry, Held
from shared.contracts.message import Micros

SLOTS = 60
"""A window is counted in so many slots; a slot leaves as a whole once its last count is as old as the window is long."""
ATTEMPT_MICROS = 60_000_000
"""A further attempt of a client request begins at most so long after the one before it has ended."""
MINUTE, HOUR, DAY = 60_000_000, 3_600_000_000, 86_400_000_000
MEASURES: dict[str, tuple[str, Micros]] = {
    "requests_per_minute": ("requests", MINUTE),
    "requests_per_hour": ("requests", HOUR),
    "requests_per_day": ("requests", DAY),
    "tokens_per_minute": ("tokens", MINUTE),
    "tokens_per_hour": ("tokens", HOUR),
    "tokens_per_day": ("tokens", DAY),
    "concurrent_requests": ("concurrent", 0),
}
"""Name of a limit: what it counts, and the length of its window in microseconds."""
_TOKEN_METERS = frozenset(("input", "cache_write_5m", "cache_write_1h", "cache_read", "output", "thinking"))
_UNKNOWN = ("", 0)


class Slot(msgspec.Struct, gc=False):
    """A part of a window. last_at: when it was last counted in."""

    last_at: Micros
    amount: int


class Window(msgspec.Struct):
    """One limit's sliding window. total: of all slots, those included that have left it since the last count."""

    total: int = 0
    last_at: Micros = 0
    slots: dict[int, Slot] = {}

    def count(self, at: Micros, amount: int, length: Micros) -> None:
        index = at * SLOTS // length
        slot = self.slots.get(index)
        if slot is None:
            self._forget(at - length)
            slot = self.slots[index] = Slot(at, 0)
        slot.last_at = max(slot.last_at, at)
        slot.amount += amount
        self.total += amount
        self.last_at = max(self.last_at, at)

    def give_back(self, at: Micros, amount: int, length: Micros) -> None:
        """What was counted at this time and was not needed; nothing once that time has left the window."""
        slot = self.slots.get(at * SLOTS // length)
        if slot is not None:
            amount = min(amount, slot.amount)
            slot.amount -= amount
            self.total -= amount

    def _forget(self, until: Micros) -> None:
        while self.slots:
            index = next(iter(self.slots))
            if self.slots[index].last_at > until:
                break
            self.total -= self.slots.pop(index).amount

    def used(self, now: Micros, length: Micros) -> int:
        """Everything counted in the window that ends now."""
        return sum(slot.amount for slot in self.slots.values() if slot.last_at > now - length)

    def counted_at(self, at: Micros, now: Micros, length: Micros) -> int:
        """What is in the slot of this time, if that is still in the window that ends now."""
        slot = self.slots.get(at * SLOTS // length)
        return slot.amount if slot and slot.last_at > now - length else 0

    def at_most(self, amount: int, now: Micros, length: Micros) -> Micros:
        """The first moment at which no more than `amount` is in the window; `now` when that is so already."""
        used, moment = self.used(now, length), now
        for slot in sorted(self.slots.values(), key=lambda slot: slot.last_at):
            if used <= amount:
                break
            if slot.last_at > now - length:
                used -= slot.amount
                moment = slot.last_at + length
        return moment


class Asking(msgspec.Struct):
    """A client request. rates: the limits of requests it has counted on. attempts: in flight."""

    rates: tuple[str, ...] = ()
    attempts: int = 0


class RateCounts(msgspec.Struct):
    """windows: by their length, then by limit, the most lately counted last.

    live: of each limit of concurrent requests, the client requests in flight with their number of attempts.
    asking, ended: client requests that are limited, and when their last attempt ended, in that order.
    tokens: what attempts in flight are counted at.
    """

    windows: dict[Micros, dict[str, Window]] = {}
    live: dict[str, dict[str, int]] = {}
    asking: dict[str, Asking] = {}
    ended: dict[str, Micros] = {}
    tokens: dict[str, int] = {}

    def held(self, held: Held, replaced: Held | None) -> None:
        """An attempt was admitted. replaced: the attempt it takes over from, whose tokens it may have."""
        if replaced is not None and self.tokens.get(replaced.rid):
            self._count_tokens(replaced, -self.tokens[replaced.rid], held.admitted_at)
            self.tokens[replaced.rid] = 0
        if not held.rates:
            return
        self._ask(held)
        self._count_tokens(held, held.rate_tokens, held.admitted_at)
        for rate in held.rates:
            measure, _ = measure_of(rate)
            if measure == "concurrent":
                live = self.live.setdefault(rate, {})
                live[held.request_id] = live.get(held.request_id, 0) + 1
            elif measure == "tokens":
                self.tokens[held.rid] = held.rate_tokens

    def ended_with(self, held: Held, tokens: int | None, at: Micros) -> None:
        """An attempt is over and took so many tokens; None: nobody knows, so what it was counted at stands."""
        counted = self.tokens.pop(held.rid, None)
        if counted is not None and tokens is not None:
            self._count_tokens(held, tokens - counted, at)
        for rate in held.rates:
            if measure_of(rate)[0] == "concurrent":
                live = self.live[rate]
                live[held.request_id] -= 1
                if not live[held.request_id]:
                    del live[held.request_id]
                if not live:
                    del self.live[rate]
        asking = self.asking[held.request_id]
        asking.attempts -= 1
        if asking.attempts == 0:
            self.ended[held.request_id] = at

    def counted(self, request_id: str, now: Micros) -> tuple[str, ...]:
        """The limits of requests that this client request has counted on, if it goes on now."""
        asking = self.asking.get(request_id)
        return asking.rates if asking and self.ended.get(request_id, now) > now - ATTEMPT_MICROS else ()

    def window(self, rate: str, length: Micros) -> Window:
        """For reading."""
        return self.windows.get(length, {}).get(rate, _EMPTY)

    def _ask(self, held: Held) -> None:
        """Counts the client request on those limits that it has not counted on before."""
        while self.ended and next(iter(self.ended.values())) <= held.admitted_at - ATTEMPT_MICROS:
            request_id = next(iter(self.ended))
            del self.ended[request_id], self.asking[request_id]
        asking = self.asking.get(held.request_id)
        if asking is None:
            asking = self.asking[held.request_id] = Asking()
        asking.attempts += 1
        self.ended.pop(held.request_id, None)
        for rate in held.rates:
            measure, length = measure_of(rate)
            if measure == "requests" and rate not in asking.rates:
                asking.rates += (rate,)
                self._writable(rate, length, held.admitted_at).count(held.admitted_at, 1, length)

    def _count_tokens(self, held: Held, tokens: int, at: Micros) -> None:
        """More counts when it becomes known, so that it counts somewhere; less is given back where it was counted."""
        for rate in held.rates:
            measure, length = measure_of(rate)
            if measure == "tokens" and tokens > 0:
                self._writable(rate, length, at).count(at, tokens, length)
            elif measure == "tokens" and tokens < 0 and (window := self.windows.get(length, {}).get(rate)):
                window.give_back(held.admitted_at, -tokens, length)

    def _writable(self, rate: str, length: Micros, at: Micros) -> Window:
        """Windows in which nothing was counted for their own length are forgotten on the way."""
        windows = self.windows.setdefault(length, {})
        window = windows.pop(rate, None) or Window()
        while windows and next(iter(windows.values())).last_at <= at - length:
            del windows[next(iter(windows))]
        windows[rate] = window
        return window


_EMPTY = Window()  # read only


@lru_cache(maxsize=100_000)
def measure_of(rate: str) -> tuple[str, Micros]:
    """What a limit counts, by its id `scope:scope_uid:name[:pattern]`; nothing for one of a newer release."""
    return MEASURES.get(rate.split(":", 3)[2], _UNKNOWN)


def tokens_of(entry: Entry) -> int | None:
    """All tokens that the provider worked on, those from its cache too; None for a provisional entry."""
    if entry.kind == "expired":
        return None
    return sum(priced.line.quantity for priced in entry.usage.lines if priced.line.meter in _TOKEN_METERS)
