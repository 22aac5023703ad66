"""The price of a usage record: which terms it falls under, and what is free."""

from collections.abc import Sequence

import msgspec

from shared.contracts.config import Provider
from shared.contracts.edge import Line, UsageRecorded
from shared.contracts.pricing import PricedLine, UsagePriced
from shared.contracts.streams import Position
from shared.rates import Book, Overrides, Priced, Terms, price

FREE_REFUSAL = "free:refused_before_output"
_OUTPUT = ("output", "thinking")


def terms_of(usage: UsageRecorded, provider: Provider | None) -> Terms:
    """The terms of one attempt. The rate card is the one in force when it was sent.

    provider: None when CONFIG no longer has it; the upstream's format then tells its kind.
    """
    who = usage.principal
    return Terms(
        at=usage.sent_at or usage.admitted_at or usage.closed_at,
        provider_kind=provider.kind if provider else usage.upstream_format,
        provider=usage.provider,
        org=who.org,
        customer=who.customer,
        team=who.team,
        key=who.key,
        unpriced=provider.unpriced if provider else "deny",
    )


def priced(usage: UsageRecorded, usage_at: Position, terms: Terms, book: Book, overrides: Overrides) -> UsagePriced:
    """The record with its price. A counter that nobody knows how to price marks it unpriced and refuses nothing."""
    found = _free(usage.lines) if refused_before_output(usage) else price(usage.lines, terms, book, overrides)
    return UsagePriced(
        usage=usage,
        lines=found.lines,
        list_nano_usd=found.list_nano_usd,
        cost_nano_usd=found.cost_nano_usd,
        charge_nano_usd=found.charge_nano_usd,
        price_version=book.version,
        usage_at=usage_at,
        unpriced=found.unpriced or bool(usage.unknown_counters),
    )


def refused_before_output(usage: UsageRecorded) -> bool:
    """The model declined before it said anything: providers do not bill that, input included."""
    said = sum(line.quantity for line in usage.lines if line.meter in _OUTPUT)
    return usage.stop_reason == "refusal" and said == 0


def _free(lines: Sequence[Line]) -> Priced:
    nothing = tuple(
        PricedLine(line=line, rate_id=FREE_REFUSAL, list_pico_usd=0, cost_pico_usd=0, charge_pico_usd=0)
        for line in lines
    )
    return Priced(lines=nothing, list_nano_usd=0, cost_nano_usd=0, charge_nano_usd=0, unpriced=False)


class Alert(msgspec.Struct, frozen=True):
    """What could not be priced: (model, meter) of each such line, and the provider's unknown counters."""

    lines: tuple[tuple[str, str], ...]
    counters: tuple[str, ...]


def alert(entry: UsagePriced) -> Alert | None:
    """What to raise about an entry; None when all of it has a price."""
    if not entry.unpriced:
        return None
    lines = dict.fromkeys((p.line.model, p.line.meter) for p in entry.lines if p.line.quantity and not p.rate_id)
    return Alert(tuple(lines), entry.usage.unknown_counters)
