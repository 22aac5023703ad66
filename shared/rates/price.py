"""What lines of usage cost: exact in pico-USD, rounded up to nano-USD once per entry and amount. No clock, no floats."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from shared.contracts.config import PriceOverride
from shared.contracts.edge import Line
from shared.contracts.message import NanoUSD
from shared.contracts.pricing import PricedLine, RateCard
from shared.rates.book import TOKEN_METERS, Book
from shared.rates.overrides import Acting, Basis, Overrides, Terms

PROMPT_METERS = ("input", "cache_write_5m", "cache_write_1h", "cache_read")
HOME_GEOS = ("", "global", "not_available")
_PPM = 1_000_000
_PERCENT = 100**3  # geo, region and batch together


class Exact(NamedTuple):
    """A rate as a fraction of whole numbers, in pico-USD for one: modifiers can leave less than a pico."""

    numerator: int
    denominator: int

    def times(self, quantity: int) -> int:
        """Pico-USD for this many, rounded up."""
        return -(-self.numerator * quantity // self.denominator)


class Rate(NamedTuple):
    """What one unit costs on each basis. id: the card and the overrides that acted; empty: unpriced."""

    id: str
    list: Exact
    cost: Exact
    charge: Exact

    def on(self, basis: Basis) -> Exact:
        """The rate that budgets of this basis count in."""
        match basis:
            case "list":
                return self.list
            case "cost":
                return self.cost
            case "charge":
                return self.charge


class Priced(msgspec.Struct, frozen=True, kw_only=True):
    """An entry's price. Each amount is the sum of its lines, rounded up once."""

    lines: tuple[PricedLine, ...]
    list_nano_usd: NanoUSD
    cost_nano_usd: NanoUSD
    charge_nano_usd: NanoUSD
    unpriced: bool


def price(lines: Sequence[Line], terms: Terms, book: Book, overrides: Overrides) -> Priced:
    """Price one attempt.

    lines: disjoint meters, each >= 0, with the model, speed and geo of the provider's answer. Bands are found by the
    prompt (input + cache reads + cache writes) of each iteration; the whole iteration is priced at its band.
    A line without a rate makes the entry unpriced, with the amount `rate_of` gives.
    """
    prompts: dict[int, int] = defaultdict(int)
    for line in lines:
        if line.meter in PROMPT_METERS:
            prompts[line.iteration] += line.quantity
    kind = terms.provider_kind
    acting = {m: overrides.acting(terms, book.names(kind, m)) for m in {line.model for line in lines}}
    priced = tuple(_priced(line, prompts[line.iteration], terms, book, acting[line.model]) for line in lines)
    return Priced(
        lines=priced,
        list_nano_usd=nano(sum(line.list_pico_usd for line in priced)),
        cost_nano_usd=nano(sum(line.cost_pico_usd for line in priced)),
        charge_nano_usd=nano(sum(line.charge_pico_usd for line in priced)),
        unpriced=any(line.line.quantity and not line.rate_id for line in priced),
    )


def nano(pico_usd: int) -> NanoUSD:
    """Rounded up: the one rounding of an entry."""
    return -(-pico_usd // 1_000)


def _priced(line: Line, prompt_tokens: int, terms: Terms, book: Book, acting: Acting) -> PricedLine:
    rate = rate_of(line, prompt_tokens, terms, book, acting)
    return PricedLine(
        line=line,
        rate_id=rate.id,
        list_pico_usd=rate.list.times(line.quantity),
        cost_pico_usd=rate.cost.times(line.quantity),
        charge_pico_usd=rate.charge.times(line.quantity),
    )


def rate_of(line: Line, prompt_tokens: int, terms: Terms, book: Book, acting: Acting) -> Rate:
    """The rate of one line (its quantity does not matter).

    The public price is the book's; where the book has none, the organisation's own card. Cost is the public price unless
    an override acts on it, and charge is the cost unless one acts on it. Percentages act on everything a matching model's
    line costs; cards replace the rates they name, at standard speed. Geo, region and batch come on top of either.

    Without any of them the line is unpriced. The tokens have been used and the provider will bill them, so under `deny`
    (which refuses before the call) as under `ceiling` they cost the dearest they can, on every basis; under `flag` they
    cost 0 until the entry is priced anew.
    """
    speed = line.speed or "standard"
    card = book.card(terms.provider_kind, line.model, speed, terms.at, prompt_tokens)
    modifiers = _modifiers(line, card, terms, book)
    public = _book_rate(line.meter, card, terms, book)
    rate_id = ""
    if public is not None:
        rate_id = public[0]
        at_list = Exact(public[1] * modifiers, _PERCENT)
    elif speed == "standard" and acting.card and (own := _card_rate(acting.card, line.meter, whole=True)) is not None:
        rate_id = f"price:{acting.card.uid}"
        at_list = Exact(own * modifiers, _PERCENT)
    else:
        return _unpriced(line, terms, book, acting)
    whole = public is None
    at_list, by_list = _overridden(at_list, acting.list, line, modifiers, whole)
    at_cost, by_cost = _overridden(at_list, acting.cost, line, modifiers, whole)
    at_charge, by_charge = _overridden(at_cost, acting.charge, line, modifiers, whole)
    used = dict.fromkeys(name for name in (rate_id, by_list, by_cost, by_charge) if name)
    return Rate("+".join(used), at_list, at_cost, at_charge)


def _book_rate(meter: str, card: RateCard | None, terms: Terms, book: Book) -> tuple[str, int] | None:
    """Id and pico-USD of the public price; None when the meter is not sold."""
    if meter in TOKEN_METERS:
        rate: int | None = getattr(card.rates, meter) if card else None
        return (card.id, rate) if card and rate is not None else None
    unit = book.unit(terms.provider_kind, meter, terms.at)
    return (unit.id, unit.pico_usd) if unit else None


def _modifiers(line: Line, card: RateCard | None, terms: Terms, book: Book) -> int:
    """Geo, region and batch as one factor over _PERCENT. Units (searches) take none of them.

    A place that is not known to be without a surcharge has it; without a card there is none to take, and no batch rebate.
    """
    if line.meter not in TOKEN_METERS:
        return _PERCENT
    geo = card.geo_percent if card and line.geo not in HOME_GEOS else 100
    batch = card.batch_percent if card and (line.batch or line.tier == "batch") else 100
    return geo * batch * book.region_percent(terms.provider_kind, line.region)


def _card_rate(override: PriceOverride, meter: str, whole: bool) -> int | None:
    """What an organisation's card asks for this meter, in pico-USD.

    Thinking is output where it is not named. whole: the card stands alone, with no book behind it: then a class of the
    prompt that it does not name is plain input.
    """
    names = [meter]
    if meter == "thinking":
        names.append("output")
    elif whole and meter in PROMPT_METERS:
        names.append("input")
    return next((override.rates[name] for name in names if name in override.rates), None)


def _overridden(
    base: Exact, override: PriceOverride | None, line: Line, modifiers: int, whole: bool
) -> tuple[Exact, str]:
    """The rate after this override, and the override's name where it acted."""
    if override is None:
        return base, ""
    name = f"price:{override.uid}"
    if not override.rates:
        factor = max(0, _PPM + override.percent_ppm)
        return Exact(base.numerator * factor, base.denominator * _PPM), name
    rate = _card_rate(override, line.meter, whole)
    # a card says what standard speed costs; the book's fast price stands, since nobody agreed another
    if rate is None or line.speed not in ("", "standard"):
        return base, ""
    return Exact(rate * modifiers, _PERCENT), name


def _unpriced(line: Line, terms: Terms, book: Book, acting: Acting) -> Rate:
    """The dearest rate this line can turn out to have, or 0 under `flag`; overrides act on priced lines only.

    An unknown meter has no family: it takes the dearest token rate of the model's ceiling.
    """
    if terms.unpriced == "flag":
        nothing = Exact(0, 1)
        return Rate("", nothing, nothing, nothing)
    ceiling = book.ceiling(terms.provider_kind, line.model)
    if line.meter in TOKEN_METERS:
        rate: int = getattr(ceiling.rates, line.meter)
    else:
        anywhere = book.unit_ceiling(line.meter)
        rate = max(getattr(ceiling.rates, m) for m in TOKEN_METERS) if anywhere is None else anywhere
    if acting.card:
        rate = max(rate, _card_rate(acting.card, line.meter, whole=True) or 0)
    dearest = Exact(rate * _modifiers(line, ceiling, terms, book), _PERCENT)
    return Rate("", dearest, dearest, dearest)
