"""Rate limits: which of them a request counts on, and whether it fits. Decided in the same step as its budgets."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

import msgspec

from services.budget.core.periods import NEVER
from services.budget.core.rate_windows import MEASURES, RateCounts
from services.budget.core.state import State
from shared.contracts.budget import Denied, Reserve
from shared.contracts.config import Customer, Key, ModelRateLimits, Org, Team
from shared.contracts.ledger import Held, LedgerEvent
from shared.contracts.message import Micros, Uid
from shared.directory import Directory
from shared.rates import canonical

BYTES_PER_TOKEN = 3  # prose and code have more; no bound, as budgets have it: what was too little counts at the close
IMAGE_TOKENS = 1_600  # of an ordinary one
PAGE_TOKENS = 3_000
OUTPUT_TOKENS = 4_096  # of an answer, unless the body allows less; few are longer
CONCURRENT_RETRY_SECONDS = 5  # at most; spread over clients, so that they do not come back all at once
_MEMO_SIZE = 10_000  # clients choose models


class RateLimit(msgspec.Struct, frozen=True, gc=False):
    """One limit. measure: requests, tokens, concurrent. length: of its window, in microseconds. models: a pattern, or ""."""

    id: str
    name: str
    measure: str
    length: Micros
    most: int
    models: str

    def fits(self, model: str) -> bool:
        return not self.models or fnmatchcase(model, self.models) or fnmatchcase(canonical(model), self.models)


class RateRules:
    """Every rate limit there is, as of one revision of CONFIG."""

    def __init__(self, directory: Directory) -> None:
        self._of_entity: dict[Uid, tuple[RateLimit, ...]] = {}
        self._memo: dict[tuple[Uid, str], tuple[RateLimit, ...]] = {}
        for entity in directory.entities.values():
            if isinstance(entity, Org | Customer | Team | Key) and (found := _compiled(entity)):
                self._of_entity[entity.uid] = found

    def on(self, key: Key, model: str) -> tuple[RateLimit, ...]:
        """What a request of this key for this model counts on, widest scope first."""
        if not self._of_entity:
            return ()
        found = self._memo.get((key.uid, model))
        if found is None:
            if len(self._memo) >= _MEMO_SIZE:
                self._memo.clear()
            above = (key.org, key.customer, key.team, key.uid)
            limits = (limit for uid in above for limit in self._of_entity.get(uid, ()))
            found = self._memo[key.uid, model] = tuple(limit for limit in limits if limit.fits(model))
        return found


def _compiled(entity: Org | Customer | Team | Key) -> tuple[RateLimit, ...]:
    scope = f"{type(entity).__name__.lower()}:{entity.uid}"
    limits: list[tuple[str, ModelRateLimits]] = [("", entity.rate_limits), *entity.rate_limits.models.items()]
    return tuple(
        RateLimit(":".join(filter(None, (scope, name, models))), name, measure, length, most, models)
        for models, given in limits
        for name, (measure, length) in MEASURES.items()
        if (most := getattr(given, name)) > 0
    )


class Tight(msgspec.Struct, frozen=True):
    """A limit that a request does not fit into now. fits_at: the first moment at which it will, NEVER when it is too large."""

    limit: RateLimit
    used: int
    asked: int
    fits_at: Micros


def refusal(state: State, limits: Sequence[RateLimit], ask: Reserve, contact: str, now: Micros) -> Denied | None:
    """None lets it in. Of several limits in its way it names the one that makes it wait the longest."""
    tokens = tokens_asked(ask)
    found = [tight for limit in limits if (tight := _tight(state, limit, ask, tokens, now))]
    return _denied(state, max(found, key=lambda tight: tight.fits_at), contact, now) if found else None


def _tight(state: State, limit: RateLimit, ask: Reserve, tokens: int, now: Micros) -> Tight | None:
    match limit.measure:
        case "concurrent":
            return _too_many_live(state.rates, limit, ask, now)
        case "requests" if ask.retry or limit.id in state.rates.counted(ask.request_id, now):
            return None  # the client's own retry, or a further attempt, of a request that has counted
        case "requests":
            return _too_much(state.rates, limit, 1, 0, now)
    return _too_much(state.rates, limit, tokens, _taken_over(state, limit, ask, now), now)


def _too_many_live(counts: RateCounts, limit: RateLimit, ask: Reserve, now: Micros) -> Tight | None:
    live = counts.live.get(limit.id, {})
    if len(live) < limit.most or ask.request_id in live:
        return None
    spread = 1 + ord(ask.rid[-1:] or "0") % CONCURRENT_RETRY_SECONDS  # the end of a ULID is random
    return Tight(limit, len(live), 1, now + spread * 1_000_000)


def _too_much(counts: RateCounts, limit: RateLimit, asked: int, freed: int, now: Micros) -> Tight | None:
    window, most = counts.window(limit.id, limit.length), limit.most + freed
    if window.total + asked <= most:  # the total is never less than what is in the window
        return None
    used = window.used(now, limit.length)
    if used + asked <= most:
        return None
    fits_at = window.at_most(limit.most - asked, now, limit.length) if asked <= limit.most else NEVER
    return Tight(limit, used - freed, asked, fits_at)


def _taken_over(state: State, limit: RateLimit, ask: Reserve, now: Micros) -> int:
    """Tokens in the window that the attempt it replaces gives back."""
    replaced = state.holds.get(ask.replaces_rid) if ask.replaces_rid else None
    if replaced is None or limit.id not in replaced.held.rates:
        return 0
    window = state.rates.window(limit.id, limit.length)
    counted = window.counted_at(replaced.held.admitted_at, now, limit.length)
    return min(counted, state.rates.tokens.get(ask.replaces_rid, 0))


def _denied(state: State, tight: Tight, contact: str, now: Micros) -> Denied:
    limit = tight.limit
    return Denied(
        budget_id=limit.id,
        reason="rate_limited",
        limit_nano_usd=0,
        spent_nano_usd=0,
        held_nano_usd=0,
        need_nano_usd=0,
        input_bound=0,
        resets_at=0 if tight.fits_at == NEVER else tight.fits_at,
        retry_after_s=0 if tight.fits_at == NEVER else -(-(tight.fits_at - now) // 1_000_000),
        contact=contact,
        owner_epoch=state.owner_epoch,
        rate_limit=limit.name,
        rate_most=limit.most,
        rate_used=tight.used,
        rate_asked=tight.asked,
    )


def charged(held: Held, limits: Sequence[RateLimit], ask: Reserve) -> Held:
    """With the limits it counts on from now on."""
    limits = [limit for limit in limits if not (ask.retry and limit.measure == "requests")]
    rates = tuple(limit.id for limit in limits)
    counts_tokens = any(limit.measure == "tokens" for limit in limits)
    return msgspec.structs.replace(held, rates=rates, rate_tokens=tokens_asked(ask) if counts_tokens else 0)


def tokens_asked(ask: Reserve) -> int:
    """What an attempt likely takes, until its close says what it took: its input, and an answer of ordinary length."""
    counted = estimate = 0
    seen_text = False
    for bound in ask.bounds:
        match bound.meter:
            case "input_tokens":
                counted += bound.quantity
            case "text_bytes":
                seen_text = True
                estimate += -(-bound.quantity // BYTES_PER_TOKEN)
            case "image":
                estimate += bound.quantity * IMAGE_TOKENS
            case "page":
                estimate += bound.quantity * PAGE_TOKENS
    if not seen_text:
        estimate += -(-ask.input_bytes // BYTES_PER_TOKEN)
    return (counted or estimate) + min(ask.max_tokens or OUTPUT_TOKENS, OUTPUT_TOKENS)


def record_bytes(event: LedgerEvent | None) -> int:
    """What the names of its limits add to an event in the record, beyond what was asked."""
    return sum(len(rate) + 2 for rate in event.rates) if isinstance(event, Held) else 0
