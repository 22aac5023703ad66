"""What happens to a hold between the grant and the close: extended, trued up, cut, withdrawn."""

from services.budget.core.admission import Rules, no_budget, spent_refusal
from services.budget.core.state import Hold, State
from shared.contracts.budget import Cut, Denied, Extend, Granted, TrueUp, Withdraw
from shared.contracts.ledger import Extended, Spent, TruedUp, Withdrawn
from shared.contracts.message import Micros, NanoUSD

CUT_MICROS = 60_000_000  # how long a cut conversation is refused


def withdraw(state: State, ask: Withdraw, now: Micros) -> Withdrawn | None:
    """Nothing was sent: free the hold, and refuse the rid should its RESERVE still be on the way."""
    if ask.rid in state.closings or ask.rid in state.tombstones:
        return None
    return Withdrawn(rid=ask.rid, at=now)


def true_up(state: State, ask: TrueUp, now: Micros) -> TruedUp | None:
    """The provider has counted the input: its hold becomes what it cost.

    Once per hold. More input than was held is taken from the output part; beyond that the close shows an overrun.
    """
    hold = state.holds.get(ask.rid)
    if hold is None or hold.trued_up or hold.held.unboundable or ask.nano_usd < 0:
        return None
    if ask.input_tokens <= 0:
        return None  # nothing was counted yet: no prompt is empty
    by_count = _at_held_rate(ask.input_tokens, hold.input_nano_usd, hold.held.input_tokens)
    # tokens without an amount are priced at the hold's rate: never is a hold given back for want of a figure
    cost = min(ask.nano_usd, by_count) if ask.nano_usd else by_count
    return TruedUp(rid=ask.rid, input_nano_usd=cost, at=now)


def extend(state: State, rules: Rules, ask: Extend, now: Micros) -> tuple[Extended | None, Granted | Denied]:
    """More output, if it is free everywhere. Asked again with the same n it answers the same."""
    hold = state.holds.get(ask.rid)
    if hold is None:
        return None, no_budget(state, "too_late")
    if ask.n in hold.extensions:
        return None, _extended(state, hold, hold.extensions[ask.n], 0)
    price = _at_held_rate(ask.output_tokens, hold.held.nano_usd - hold.held.input_nano_usd, hold.held.output_tokens)
    limits = [limit for charge in hold.held.charges if (limit := rules.catalogue.limit(charge.budget_id))]
    for limit in limits:
        charge = next(c for c in hold.held.charges if c.budget_id == limit.id)
        counter = state.counter(charge.budget_id, charge.period_id)
        if limit.hard and counter.spent(limit.basis) + counter.held_nano_usd + price > limit.nano_usd:
            return None, spent_refusal(state, limit, now)
    event = Extended(rid=ask.rid, n=ask.n, nano_usd=price, output_tokens=ask.output_tokens, at=now)
    return event, _extended(state, hold, ask.output_tokens, price)


def cut(state: State, ask: Cut, now: Micros) -> Spent | None:
    """Remember the conversation that is about to be ended at the cap; once per rid, since it is ended once."""
    hold = state.holds.get(ask.rid)
    if hold is None or not ask.budget_id:
        return None
    return Spent(
        rid=ask.rid,
        budget_id=ask.budget_id,
        key=ask.principal.key,
        session=ask.session,
        agent=ask.agent,
        body_digest=ask.body_digest,
        until=now + CUT_MICROS,
    )


def _at_held_rate(tokens: int, nano_usd: NanoUSD, of_tokens: int) -> NanoUSD:
    """Rounded up. Without a rate to go by it costs everything there is."""
    return -(-tokens * nano_usd // of_tokens) if of_tokens > 0 else nano_usd


def _extended(state: State, hold: Hold, output_tokens: int, price: NanoUSD) -> Granted:
    return Granted(
        held_input_tokens=hold.held.input_tokens,
        held_output_tokens=output_tokens,
        held_nano_usd=hold.nano_usd + price,
        charges=hold.held.charges,
        at_cap=hold.held.at_cap,
        remaining_nano_usd=0,
        standings=(),
        admitted_at=hold.held.admitted_at,
        owner_epoch=state.owner_epoch,
    )
