"""What an attempt could cost: tokens from the body's size, money from the price book."""

import msgspec

from services.budget.core.limits import Path
from shared.contracts.budget import Reserve
from shared.contracts.config import PriceOverride
from shared.contracts.message import Micros, NanoUSD
from shared.rates import Asked, Book, HoldRates, Overrides, Terms, hold_rates
from shared.rates.book import Limits

BASE_TOKENS = 1_000  # what the provider adds around a prompt
TOKENS_PER_BYTE_PERCENT = 60  # until learned; 100 under `hold: bound`
IMAGE_TOKENS = 4_784  # published maximum of a high-resolution image
PAGE_TOKENS = 3_000 + IMAGE_TOKENS  # a PDF page: published maximum of its text, and itself as an image
SEARCH_TOKENS = 20_000  # what one web search adds to the prompt; no maximum is published: ten results of 2,000
NEED_OUTPUT_TOKENS = 4_096  # a stream is worth beginning with this much output
_RATE_MEMO_MICROS = 60_000_000  # cards begin on whole minutes
_MEMO_SIZE = 10_000


class Size(msgspec.Struct, frozen=True, gc=False):
    """Of one attempt. want: its bound. need: the least that is worth a grant; equal to want where nothing can be cut."""

    input_tokens: int
    output_tokens: int
    input_nano_usd: NanoUSD
    search_nano_usd: NanoUSD
    want_nano_usd: NanoUSD
    need_nano_usd: NanoUSD
    rates: HoldRates
    unboundable: bool

    def output_within(self, nano_usd: NanoUSD) -> int:
        """Output tokens that this much money pays for, once input and searches are paid."""
        left = nano_usd - self.input_nano_usd - self.search_nano_usd
        return min(self.output_tokens, self.rates.output_tokens_for(left))

    def money(self, output_tokens: int) -> NanoUSD:
        """The hold for this much output."""
        return self.input_nano_usd + self.search_nano_usd + self.rates.hold(0, output_tokens).output_nano_usd


class Tariff:
    """The price book and the organisation's own prices; remembers rates, since turns of one key ask for the same."""

    def __init__(self, book: Book, prices: tuple[PriceOverride, ...] = ()) -> None:
        self.book = book
        self._overrides = Overrides(prices)
        self._memo: dict[tuple[object, ...], HoldRates] = {}
        self._band_memo: dict[tuple[str, str, str, int], tuple[int, ...]] = {}

    def size(self, ask: Reserve, path: Path, now: Micros) -> Size:
        """See ledger.md, section 1: first light holds the bound."""
        limits = self.book.limits(path.provider.kind, ask.model)
        input_tokens, unboundable = input_bound(ask, limits, path.full_bytes)
        output_tokens = ask.max_tokens or limits.max_tokens
        searches = sum(bound.quantity for bound in ask.bounds if bound.meter == "web_search")
        rates = self._rates(ask, path, input_tokens, now)
        want = rates.hold(input_tokens, output_tokens, searches)
        cuttable = ask.stream and ask.visible_output and not unboundable
        need = rates.hold(input_tokens, min(output_tokens, NEED_OUTPUT_TOKENS), searches) if cuttable else want
        return Size(
            input_tokens,
            output_tokens,
            want.input_nano_usd,
            want.search_nano_usd,
            want.nano_usd,
            need.nano_usd,
            rates,
            unboundable,
        )

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


def input_bound(ask: Reserve, limits: Limits, full_bytes: bool) -> tuple[int, bool]:
    """Most input tokens of all classes together, and whether they can still grow after `message_start`.

    The provider's own count, where the edge asked for it, stands in for text, images and pages. A meter that we do not
    know leaves them open: the model's whole context for each loop that the body allows. Each web search is such a loop,
    of known growth: it reads everything before it again, and the results of the searches before it.
    """
    counted = loops = searches = 0
    estimate = BASE_TOKENS
    seen_text = False
    for bound in ask.bounds:
        match bound.meter:
            case "text_bytes":
                seen_text = True
                estimate += _text_tokens(bound.quantity, full_bytes)
            case "image":
                estimate += bound.quantity * IMAGE_TOKENS
            case "page":
                estimate += bound.quantity * PAGE_TOKENS
            case "input_tokens":
                counted += bound.quantity
            case "web_search":
                searches += bound.quantity
            case _:
                loops += max(1, bound.quantity)
    if not seen_text:
        estimate += _text_tokens(ask.input_bytes, full_bytes)
    tokens = counted or estimate
    searched = (searches + 1) * tokens + SEARCH_TOKENS * searches * (searches + 1) // 2
    searched = max(tokens, min(searched, (searches + 1) * limits.context_tokens))
    return max(searched, loops * limits.context_tokens), loops + searches > 0


def _text_tokens(size: int, full_bytes: bool) -> int:
    return size if full_bytes else -(-size * TOKENS_PER_BYTE_PERCENT // 100)
