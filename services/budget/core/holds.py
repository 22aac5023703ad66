"""What happens to a hold between the grant and the close: trued up, cut, withdrawn. For more money see `extension`."""

from services.budget.core.state import State
from shared.contracts.budget import Cut, TrueUp, Withdraw
from shared.contracts.ledger import Spent, TruedUp, Withdrawn
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
    by_count = at_held_rate(ask.input_tokens, hold.input_nano_usd, hold.held.input_tokens)
    # tokens without an amount are priced at the hold's rate: never is a hold given back for want of a figure
    cost = min(ask.nano_usd, by_count) if ask.nano_usd else by_count
    return TruedUp(rid=ask.rid, input_nano_usd=cost, at=now)


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


def at_held_rate(tokens: int, nano_usd: NanoUSD, of_tokens: int) -> NanoUSD:
    """Rounded up. Without a rate to go by it costs everything there is."""
    return -(-tokens * nano_usd // of_tokens) if of_tokens > 0 else nano_usd
