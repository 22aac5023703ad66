"""What an attempt can cost at most: the same rates as the bill's, the dearest that can apply. Never below `price`."""

from collections.abc import Iterable, Sequence

import msgspec

from shared.contracts.edge import Line
from shared.contracts.message import NanoUSD, PicoUSD
from shared.rates.book import FOR_EVER, Book
from shared.rates.overrides import Acting, Basis, Overrides, Terms
from shared.rates.price import Rate, nano, rate_of

_OUTPUT = ("output", "thinking")


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the body asks for, as far as it moves the rates.

    input_tokens: bound on all classes of the prompt together; it decides which bands can be reached.
    speed: standard, fast. geo: "", us, global. cache_ttl: "", 5m, 1h. region: as on the lines of the bill.
    """

    model: str
    input_tokens: int
    speed: str = "standard"
    geo: str = ""
    cache_ttl: str = ""
    region: str = ""


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """What to set aside; each part is rounded up by itself."""

    input_nano_usd: NanoUSD
    output_nano_usd: NanoUSD
    search_nano_usd: NanoUSD

    @property
    def nano_usd(self) -> NanoUSD:
        return self.input_nano_usd + self.output_nano_usd + self.search_nano_usd


class HoldRates(msgspec.Struct, frozen=True, kw_only=True):
    """The dearest rates of one attempt, in whole pico-USD for one token or search.

    unpriced: the model has no card at standard speed, so these are ceilings (0 under `flag`); a hard budget refuses it
    under `deny`. Holds are in multiples of these, so one can be cut to the money there is.
    """

    input_pico_usd: PicoUSD
    output_pico_usd: PicoUSD
    search_pico_usd: PicoUSD
    unpriced: bool

    def hold(self, input_tokens: int, output_tokens: int, web_searches: int = 0) -> Hold:
        """For at most this much. input_tokens: not above the bound that these rates were made for."""
        return Hold(
            input_nano_usd=nano(input_tokens * self.input_pico_usd),
            output_nano_usd=nano(output_tokens * self.output_pico_usd),
            search_nano_usd=nano(web_searches * self.search_pico_usd),
        )

    def output_tokens_for(self, nano_usd: NanoUSD) -> int:
        """How many tokens of output this money pays for, rounded down; no end of them where output costs nothing."""
        if nano_usd <= 0:
            return 0
        return nano_usd * 1_000 // self.output_pico_usd if self.output_pico_usd else FOR_EVER


def hold_rates(
    asked: Asked, terms: Terms, book: Book, overrides: Overrides, bases: Iterable[Basis] = ("cost",)
) -> HoldRates:
    """The dearest rates that can apply to what is asked, over the bases that the path's budgets count in.

    Covers every band the bound reaches, every class of input (1-hour writes only where the body asks for them), thinking
    beside output, and the standard speed that an unsupported `fast` silently falls back to.
    """
    acting = overrides.acting(terms, book.names(terms.provider_kind, asked.model))
    speeds = dict.fromkeys((asked.speed or "standard", "standard"))
    prompts = _prompts(asked, speeds, terms, book)
    classes = ["input", "cache_read", "cache_write_5m"]
    if asked.cache_ttl == "1h":
        classes.append("cache_write_1h")
    wanted = tuple(bases)

    def dearest(meters: Sequence[str]) -> int:
        rates = (
            _rate(asked, meter, speed, prompt, terms, book, acting)
            for meter in meters
            for speed in speeds
            for prompt in prompts
        )
        return max(rate.on(basis).times(1) for rate in rates for basis in wanted)

    standard = (_rate(asked, meter, "standard", prompts[0], terms, book, acting) for meter in ("input", "output"))
    return HoldRates(
        input_pico_usd=dearest(classes),
        output_pico_usd=dearest(_OUTPUT),
        search_pico_usd=dearest(("web_search",)),
        unpriced=not all(rate.id for rate in standard),
    )


def _prompts(asked: Asked, speeds: Iterable[str], terms: Terms, book: Book) -> list[int]:
    """A prompt size in each band that the bound reaches, the bound itself among them."""
    cards = (card for speed in speeds for card in book.cards(terms.provider_kind, asked.model, speed, terms.at))
    starts = {card.prompt_above + 1 for card in cards if card.prompt_above < asked.input_tokens}
    return sorted({*starts, asked.input_tokens})


def _rate(asked: Asked, meter: str, speed: str, prompt_tokens: int, terms: Terms, book: Book, acting: Acting) -> Rate:
    line = Line(meter=meter, quantity=1, model=asked.model, speed=speed, geo=asked.geo, region=asked.region)
    return rate_of(line, prompt_tokens, terms, book, acting)
