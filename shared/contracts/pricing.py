"""Pricing puts a price on every usage record, once, reproducible from its price version."""

from typing import Literal

import msgspec

from shared.contracts.edge import Line, UsageRecorded
from shared.contracts.message import Message, NanoUSD, Part, PicoUSD
from shared.contracts.streams import Position

USAGE_PRICED = "usage.priced.{shard}"  # event, PRICED: UsagePriced, bundled; a bundle of USAGE is never divided
PRICES_BOOK = "prices.book"  # event, PRICES: PriceBookPublished; the last one counts


class PricedLine(Part, frozen=True, kw_only=True):
    """A line with the rate that priced it. rate_id is empty when no card applies: unpriced, never free."""

    line: Line
    rate_id: str
    list_pico_usd: PicoUSD
    cost_pico_usd: PicoUSD
    charge_pico_usd: PicoUSD


class UsagePriced(Message, frozen=True, kw_only=True):
    """A usage record and its price. Idempotent by `rid:kind`.

    list: public price; cost: what the provider bills us; charge: what we bill the team. Each is the exact sum of its
    lines, rounded up once. unpriced: some line had no rate; what was charged for it follows the provider's policy.
    usage_at: position of the usage record in USAGE.
    """

    usage: UsageRecorded
    lines: tuple[PricedLine, ...]
    list_nano_usd: NanoUSD
    cost_nano_usd: NanoUSD
    charge_nano_usd: NanoUSD
    price_version: str
    usage_at: Position
    unpriced: bool = False


class Tokens(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Rates of one card, in pico-USD for one token (1,000,000 = 1 USD per million tokens); None: not sold."""

    input: int | None = None
    output: int | None = None
    thinking: int | None = None
    cache_write_5m: int | None = None
    cache_write_1h: int | None = None
    cache_read: int | None = None


class RateCard(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What one model costs, for one speed and band of prompt size, between two instants.

    models: exact ids this card prices, aliases included. valid_from, valid_until: RFC 3339, until is exclusive.
    prompt_above, prompt_up_to: band of prompt tokens (input + cache reads + cache writes); whole request at the band.
    max_tokens, context_tokens: what the model can do, for bounds where the body names none.
    geo_percent: percent of the rate for `inference_geo: us` (110: ten per cent more); 100 where it changes nothing.
    """

    id: str
    provider: str
    models: tuple[str, ...]
    rates: Tokens
    family: str = ""
    speed: Literal["standard", "fast"] = "standard"
    prompt_above: int = 0
    prompt_up_to: int | None = None
    valid_from: str = "2020-01-01T00:00:00Z"
    valid_until: str | None = None
    geo_percent: int = 100
    batch_percent: int = 50
    max_tokens: int = 128_000
    context_tokens: int = 1_000_000
    source: str = ""


class UnitRate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A rate that does not depend on the model, in pico-USD for one unit of the meter (a request)."""

    id: str
    provider: str
    meter: str
    pico_usd: int
    valid_from: str = "2020-01-01T00:00:00Z"
    valid_until: str | None = None
    source: str = ""


class RegionRate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Percent of every token rate that a provider takes in a class of regions (110: ten per cent more)."""

    id: str
    provider: str
    region: str
    percent: int
    source: str = ""


class PriceBook(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All cards with one version. Dated data, never code."""

    version: str
    published_at: str
    source: str
    cards: tuple[RateCard, ...]
    units: tuple[UnitRate, ...] = ()
    regions: tuple[RegionRate, ...] = ()


class PriceBookPublished(Message, frozen=True, kw_only=True):
    """The whole book as the JSON of PriceBook."""

    version: str
    book: bytes
