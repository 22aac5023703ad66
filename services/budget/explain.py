"""The story of one attempt, from the ledger alone; `sluicegate ledger explain` calls it. Needs the bus, but no owner."""

from collections.abc import Iterable
from contextlib import aclosing
from typing import Any

import msgspec

from services.budget.core.luggage import unpack
from shared import clock
from shared.bus import Bus
from shared.contracts.attribution import Charge
from shared.contracts.ledger import (
    LEDGER_COMMITTED,
    Arrived,
    Commit,
    Entry,
    Extended,
    Held,
    LedgerEvent,
    PassedOn,
    Spent,
    TruedUp,
    Withdrawn,
)
from shared.contracts.message import Decoder, Micros, NanoUSD
from shared.contracts.pricing import PricedLine
from shared.contracts.streams import LEDGER

REPLAY_BATCH = 2_000
_commit = Decoder(Commit)


class Step(msgspec.Struct, frozen=True):
    """One event. seq: its record in LEDGER. event: as it stands there, by field; figures in nano- and pico-USD, times in µs."""

    seq: int
    owner_epoch: int
    at: Micros
    kind: str
    words: str
    event: dict[str, Any]


async def story(bus: Bus, shard: str, rid: str) -> list[Step]:
    """Reads the whole ledger once; empty when it knows nothing of this attempt. Raises Unavailable."""
    subject, wanted, steps = LEDGER_COMMITTED.format(shard=shard), rid.encode(), list[Step]()
    last = await bus.last(LEDGER, subject)
    if last is None:
        return steps
    async with aclosing(bus.follow(LEDGER, subject, batch=REPLAY_BATCH)) as lists:  # type: ignore[type-var]  # an async generator behind its interface
        async for messages in lists:
            for stored in messages:
                if wanted in stored.data:  # far cheaper than decoding every record
                    steps += told(stored.seq, _commit.decode(stored.data), rid)
            if messages[-1].seq >= last.seq:
                break
    return steps


def told(seq: int, commit: Commit, rid: str) -> Iterable[Step]:
    """What this record says of the attempt."""
    for event in commit.events:
        if words := _words(event, rid):
            kind = type(event).__struct_config__.tag
            fields: dict[str, Any] = _plain(event)
            yield Step(seq, commit.owner_epoch, commit.at, str(kind), words, fields)


def _words(event: LedgerEvent, rid: str) -> str:
    """Empty when it is about another attempt."""
    words = ""
    match event:
        case Held(rid=of) if of == rid:
            words = _held(event)
        case Held(replaces_rid=of) if of == rid:
            words = f"Replaced by {event.rid}, which goes on with the request; only input already billed stays held."
        case TruedUp(rid=of) if of == rid:
            words = f"The provider counted the input: its part of the hold is now {usd(event.input_nano_usd)}."
        case Extended(rid=of) if of == rid:
            words = f"Extension {event.n}: {event.output_tokens:,} more tokens of output for {usd(event.nano_usd)}."
        case Withdrawn(rid=of) if of == rid:
            words = "Withdrawn before anything was sent: its hold, if any, is free again."
        case Spent(rid=of) if of == rid:
            until = clock.rfc3339(event.until)
            words = f"Cut at the cap of {event.budget_id}; the conversation is refused there until {until}."
        case Arrived():
            words = _arrived(event, rid)
        case PassedOn(rid=of) if of == rid:
            words = f"Its organisation lives in shard {event.to} by now: it is booked in the ledger there."
        case Entry() if event.usage.usage.rid == rid:
            words = _entry(event)
    return words


def _arrived(event: Arrived, rid: str) -> str:
    there = unpack(event.data)
    if hold := there.holds.get(rid):
        return f"Its organisation moved here from shard {event.source}, with {usd(hold.nano_usd)} held for it."
    if closing := there.closings.get(rid):
        return f"Its organisation moved here from shard {event.source}, where it was closed as {closing.kind}."
    return ""


def _held(held: Held) -> str:
    size = f"{held.input_tokens:,} tokens of input ({usd(held.input_nano_usd)}) and {held.output_tokens:,} of output"
    words = f"Admitted: {usd(held.nano_usd)} held for {held.model}, {size}, booked on {_charges(held.charges)}."
    if held.limited_by:
        words += f" Made smaller by {held.limited_by}, which had no more room."
    if held.lease:
        words += f" The edge admitted it by itself, on lease {held.lease}."
    if held.replaces_rid:
        words += f" It goes on for {held.replaces_rid}."
    return words


def _entry(entry: Entry) -> str:
    usage, priced = entry.usage.usage, entry.usage
    amounts = (
        f"cost {usd(priced.cost_nano_usd)}, list {usd(priced.list_nano_usd)}, charge {usd(priced.charge_nano_usd)}"
    )
    lines = "; ".join(map(_line, priced.lines)) or "no lines"
    how = f"a correction of {entry.corrects}" if entry.corrects else entry.kind
    words = (
        f"Booked as {entry.event_id}, {how} ({usage.outcome}): {amounts}, on {_charges(entry.charges)}. Lines: {lines}."
    )
    words += f" Prices of {priced.price_version}."
    for flag, said in (
        (usage.estimated, "estimated from what was seen passing"),
        (priced.unpriced, "not all of it has a rate"),
        (usage.ungoverned, "admitted without a verdict"),
        (entry.late, "booked in a period that was over"),
        (entry.overrun_nano_usd, f"{usd(entry.overrun_nano_usd)} more than was held"),
    ):
        words += f" Note: {said}." if flag else ""
    return words


def _line(priced: PricedLine) -> str:
    line, rate = priced.line, priced.rate_id or "no rate"
    return f"{line.quantity:,} {line.meter} of {line.model} at {rate} = {usd(priced.cost_pico_usd // 1_000)}"


def _charges(charges: Iterable[Charge]) -> str:
    return ", ".join(f"{charge.budget_id} in {charge.period_id}" for charge in charges) or "no budget"


def usd(nano_usd: NanoUSD) -> str:
    """Exact."""
    whole, part = divmod(abs(nano_usd), 1_000_000_000)
    fraction = f"{part:09d}".rstrip("0").ljust(2, "0")
    return f"{'-' if nano_usd < 0 else ''}${whole}.{fraction}"


def _plain(value: Any) -> Any:
    """Structs by field name, bytes in hexadecimal: contracts are arrays on the bus, and people read names."""
    if isinstance(value, msgspec.Struct):
        return {field: _plain(getattr(value, field)) for field in value.__struct_fields__}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    if isinstance(value, bytes):
        return value.hex()
    return value
