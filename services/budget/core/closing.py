"""Booking the true cost: one closing entry for every attempt, corrections where a better record comes later."""

import msgspec

from services.budget.core.admission import Rules
from services.budget.core.closings import Closing
from services.budget.core.limits import Facts
from services.budget.core.state import Hold, State
from shared.contracts.attribution import Charge
from shared.contracts.edge import Line, UsageRecorded
from shared.contracts.ledger import Entry
from shared.contracts.message import Micros
from shared.contracts.pricing import PricedLine, UsagePriced
from shared.contracts.streams import Position

_RANK = {"expired": 0, "void": 1, "recovered": 2, "settled": 3}


def close(state: State, rules: Rules, priced: UsagePriced, now: Micros) -> Entry | None:
    """The entry that a priced usage record leads to; None for a duplicate, or one that is worse than what stands."""
    usage = priced.usage
    if before := state.closings.get(usage.rid):
        if _RANK.get(usage.kind, 0) <= _RANK.get(before.kind, 0):
            return None
        return _correction(rules, priced, before, now)
    hold = state.holds.get(usage.rid)
    charges = hold.held.charges if hold else usage.charges or _path_charges(rules, usage, now)
    held_nano_usd = hold.nano_usd if hold else state.set_aside(usage)
    return Entry(
        event_id=f"{usage.rid}:0",
        kind=usage.kind,
        corrects="",
        admitted_at=hold.held.admitted_at if hold else usage.admitted_at or usage.sent_at or now,
        booked_at=now,
        charges=charges,
        usage=priced,
        held_nano_usd=held_nano_usd,
        overrun_nano_usd=max(0, priced.cost_nano_usd - held_nano_usd) if hold or held_nano_usd else 0,
        late=_late(rules, charges, now),
    )


def expire(state: State, rid: str, shard: str, rules: Rules, now: Micros) -> Entry | None:
    """Nobody lists this attempt any more: its hold becomes provisional spend, in full. Burnt money is not lent again."""
    hold = state.holds.get(rid)
    if hold is None:
        return None
    held = hold.held
    return Entry(
        event_id=f"{rid}:0",
        kind="expired",
        corrects="",
        admitted_at=held.admitted_at,
        booked_at=now,
        charges=held.charges,
        usage=_provisional(hold, shard, now),
        held_nano_usd=hold.nano_usd,
        late=_late(rules, held.charges, now),
    )


def _correction(rules: Rules, priced: UsagePriced, before: Closing, now: Micros) -> Entry:
    """Signed: what stands after all entries of this rid together is the new record. Booked where the first one was."""
    rid, n = priced.usage.rid, before.n + 1
    difference = msgspec.structs.replace(
        priced,
        lines=(*priced.lines, *(_negated(line) for line in before.lines)),
        list_nano_usd=priced.list_nano_usd - before.list_nano_usd,
        cost_nano_usd=priced.cost_nano_usd - before.cost_nano_usd,
        charge_nano_usd=priced.charge_nano_usd - before.charge_nano_usd,
    )
    return Entry(
        event_id=f"{rid}:{n}",
        kind="correction",
        corrects=f"{rid}:{before.n}",
        admitted_at=before.admitted_at,
        booked_at=now,
        charges=before.charges,
        usage=difference,
        late=_late(rules, before.charges, now),
    )


def _negated(priced: PricedLine) -> PricedLine:
    return PricedLine(
        line=msgspec.structs.replace(priced.line, quantity=-priced.line.quantity),
        rate_id=priced.rate_id,
        list_pico_usd=-priced.list_pico_usd,
        cost_pico_usd=-priced.cost_pico_usd,
        charge_pico_usd=-priced.charge_pico_usd,
    )


def _provisional(hold: Hold, shard: str, now: Micros) -> UsagePriced:
    """The row of an attempt of which nothing is known but its hold."""
    held = hold.held
    usage = UsageRecorded(
        rid=held.rid,
        request_id=held.request_id,
        attempt=held.attempt,
        kind="expired",
        shard=shard,
        edge=held.edge,
        epoch=held.epoch,
        spool_seq=0,
        principal=held.principal,
        charges=held.charges,
        config_rev=held.config_rev,
        held_nano_usd=held.nano_usd,
        admitted_at=held.admitted_at,
        sent_at=held.admitted_at,
        closed_at=now,
        session=held.session,
        agent=held.agent,
        provider=held.provider,
        request_model=held.model,
        wire_model=held.model,
        stream=held.stream,
        body_digest=held.body_digest,
        outcome="edge_died",
        estimated=True,
    )
    line = PricedLine(
        line=Line(meter="hold", quantity=1, model=held.model),
        rate_id="",
        list_pico_usd=hold.nano_usd * 1_000,
        cost_pico_usd=hold.nano_usd * 1_000,
        charge_pico_usd=hold.nano_usd * 1_000,
    )
    return UsagePriced(
        usage=usage,
        lines=(line,),
        list_nano_usd=hold.nano_usd,
        cost_nano_usd=hold.nano_usd,
        charge_nano_usd=hold.nano_usd,
        price_version=held.price_version,
        usage_at=Position(),
    )


def _path_charges(rules: Rules, usage: UsageRecorded, now: Micros) -> tuple[Charge, ...]:
    """An attempt without a hold, ungoverned or lost, counts on every budget of its path, in the period it was sent in."""
    path = rules.catalogue.path(usage.principal.key, usage.provider, usage.session)
    if path is None:
        return ()
    facts = Facts(usage.wire_model, path.provider, usage.credential, usage.operation, usage.principal.tags)
    at = usage.sent_at or now
    return tuple(
        Charge(budget_id=limit.id, period_id=limit.calendar.at(at).id) for limit in path.limits if limit.matches(facts)
    )


def _late(rules: Rules, charges: tuple[Charge, ...], now: Micros) -> bool:
    """Whether it is booked in a period that is over."""
    for charge in charges:
        limit = rules.catalogue.limit(charge.budget_id)
        if limit and limit.calendar.at(now).id != charge.period_id:
            return True
    return False
