"""What an attempt could cost: tokens from the body's size, money from the price book."""

import msgspec

from services.budget.core.learned import Learned
from services.budget.core.limits import Path
from shared.contracts.budget import Reserve
from shared.contracts.config import PriceOverride
from shared.contracts.message import Micros, NanoUSD
from shared.rates import Asked, Book, HoldRates, Overrides, Terms, hold_rates
from shared.rates.size import input_bound

TOKENS_PER_100_BYTES = 60  # until learned
MOST_TOKENS_PER_100_BYTES = 100  # held under `hold: bound`, and never passed
LEARNED_SPARE_PERCENT = 110  # of what was learned, since the next prompt may be denser than all before
NEED_OUTPUT_TOKENS = 4_096  # a stream is worth beginning with this much output, until its usual output is known
LEAST_OUTPUT_TOKENS = 256  # whatever was learned: asking for more takes a moment
_RATE_MEMO_MICROS = 60_000_000  # cards begin on whole minutes
_MEMO_SIZE = 10_000


class Size(msgspec.Struct, frozen=True, gc=False):
    """Of one attempt. max_tokens: of output, at most. output_tokens, want: what it had best hold, of tokens and in all.

    need: the least that is worth a grant; equal to want where nothing can be cut. beyond: from what is held because it is
    usual to the bound; 0 under `hold: expected`, which asks for just that.
    """

    input_tokens: int
    max_tokens: int
    output_tokens: int
    input_nano_usd: NanoUSD
    search_nano_usd: NanoUSD
    want_nano_usd: NanoUSD
    need_nano_usd: NanoUSD
    rates: HoldRates
    unboundable: bool
    text_bytes: int
    beyond_nano_usd: NanoUSD = 0

    def output_within(self, nano_usd: NanoUSD) -> int:
        """Output tokens that this much money pays for, once input and searches are paid."""
        left = nano_usd - self.input_nano_usd - self.search_nano_usd
        return min(self.output_tokens, self.rates.output_tokens_for(left))

    def money(self, output_tokens: int) -> NanoUSD:
        """The hold for this much output."""
        return self.input_nano_usd + self.search_nano_usd + self.rates.hold(0, output_tokens).output_nano_usd


class Advance(msgspec.Struct, frozen=True, gc=False):
    """By what attempts that are still to come are sized. until: when prices change next."""

    rates: HoldRates
    tokens_per_100_bytes: int
    until: Micros


class Tariff:
    """The price book and the organisation's own prices; remembers rates, since turns of one key ask for the same."""

    def __init__(self, book: Book, prices: tuple[PriceOverride, ...] = ()) -> None:
        self.book = book
        self._overrides = Overrides(prices)
        self._memo: dict[tuple[object, ...], HoldRates] = {}
        self._band_memo: dict[tuple[str, str, str, int], tuple[int, ...]] = {}

    def size(self, ask: Reserve, path: Path, learned: Learned, now: Micros) -> Size:
        """See ledger.md, section 1, "What is held"."""
        limits = self.book.limits(path.provider.kind, ask.model)
        input_tokens, unboundable = input_bound(ask, limits, _tokens_per_100_bytes(ask, path, learned))
        most = best = least = ask.max_tokens or limits.max_tokens
        if ask.stream and ask.visible_output and not unboundable:
            best, least = _output_tokens(most, path.hold, learned.output_tokens(path.principal, ask.model))
        searches = sum(bound.quantity for bound in ask.bounds if bound.meter == "web_search")
        rates = self._rates(ask, path, input_tokens, now)
        want = rates.hold(input_tokens, best, searches)
        need = want if least == best else rates.hold(input_tokens, least, searches)
        beyond = 0
        if best < most and path.hold != "expected":
            beyond = rates.hold(0, most).output_nano_usd - rates.hold(0, best).output_nano_usd
        return Size(
            input_tokens,
            most,
            best,
            want.input_nano_usd,
            want.search_nano_usd,
            want.nano_usd,
            need.nano_usd,
            rates,
            unboundable,
            text_alone(ask),
            beyond,
        )

    def in_advance(self, ask: Reserve, path: Path, learned: Learned, now: Micros) -> Advance:
        """What attempts like this one are held at whatever their size, for as long as no price changes."""
        context = self.book.limits(path.provider.kind, ask.model).context_tokens
        until = min(self.book.next_change(now), self._overrides.next_change(path.key.org, now))
        return Advance(self._rates(ask, path, context, now), _tokens_per_100_bytes(ask, path, learned), until)

    def _rates(self, ask: Reserve, path: Path, input_tokens: int, now: Micros) -> HoldRates:
        key, provider = path.key, path.provider
        region = next((c.region for c in provider.credentials if c.id == ask.credential), "") or provider.region
        minute = now // _RATE_MEMO_MICROS
        bands = self._bands(provider.kind, ask.model, ask.speed or "standard", minute)
        band = sum(above < input_tokens for above in bands) if bands else 0
        ways = (ask.model, ask.speed, ask.geo, ask.cache_ttl, region, band)
        memo = (*ways, key.uid, provider.uid, path.bases, minute)
        rates = self._memo.get(memo)
        if rates is None:
            asked = Asked(
                model=ask.model,
                input_tokens=input_tokens,
                speed=ask.speed,
                geo=ask.geo,
                cache_ttl=ask.cache_ttl,
                region=region,
            )
            rates = hold_rates(asked, _terms(path, now), self.book, self._overrides, path.bases)
            if len(self._memo) >= _MEMO_SIZE:
                self._memo.clear()
            self._memo[memo] = rates
        return rates

    def _bands(self, kind: str, model: str, speed: str, minute: int) -> tuple[int, ...]:
        """Sizes of the prompt above which other cards count."""
        memo = (kind, model, speed, minute)
        bands = self._band_memo.get(memo)
        if bands is None:
            at = minute * _RATE_MEMO_MICROS
            cards = (card for each in {speed, "standard"} for card in self.book.cards(kind, model, each, at))
            bands = tuple(card.prompt_above for card in cards)
            if len(self._band_memo) >= _MEMO_SIZE:
                self._band_memo.clear()
            self._band_memo[memo] = bands
        return bands


def _terms(path: Path, now: Micros) -> Terms:
    key, provider = path.key, path.provider
    return Terms(
        at=now,
        provider_kind=provider.kind,
        provider=provider.uid,
        org=key.org,
        customer=key.customer,
        team=key.team,
        key=key.uid,
        unpriced=provider.unpriced,
    )


def _output_tokens(most: int, hold: str, known: int | None) -> tuple[int, int]:
    """What a stream had best hold, and the least that it is worth beginning with; more can be asked for on the way."""
    likely = NEED_OUTPUT_TOKENS if known is None else max(known, LEAST_OUTPUT_TOKENS)
    least = min(most, likely)
    if hold == "bound" or (hold == "adaptive" and known is None):
        return most, least
    return least, least


def _tokens_per_100_bytes(ask: Reserve, path: Path, learned: Learned) -> int:
    if path.hold == "bound":
        return MOST_TOKENS_PER_100_BYTES
    known = learned.tokens_per_100_bytes(path.key.uid, ask.model)
    if known is None:
        return TOKENS_PER_100_BYTES
    return min(MOST_TOKENS_PER_100_BYTES, -(-known * LEARNED_SPARE_PERCENT // 100))


def text_alone(ask: Reserve) -> int:
    """Bytes of a prompt that is nothing but text, else 0: from such a one can be learned what a byte is worth."""
    if any(bound.meter != "text_bytes" for bound in ask.bounds):
        return 0
    return sum(bound.quantity for bound in ask.bounds) or ask.input_bytes
