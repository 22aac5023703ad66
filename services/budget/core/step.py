"""One command, one decision: the same door for the owner's loop, for tests and for simulations."""

import msgspec

from services.budget.core import admission, closing, holds
from services.budget.core.admission import Rules
from services.budget.core.state import State
from shared.contracts.budget import Cut, Denied, Extend, Granted, Reserve, TrueUp, Withdraw
from shared.contracts.ledger import Entry, LedgerEvent
from shared.contracts.message import Micros
from shared.contracts.pricing import UsagePriced
from shared.contracts.streams import Position


class Close(msgspec.Struct, frozen=True):
    """A record of PRICED and where it stands there."""

    priced: UsagePriced
    at: Position


class Expire(msgspec.Struct, frozen=True):
    """No edge has listed this attempt for too long."""

    rid: str


Command = Reserve | Withdraw | Extend | Cut | TrueUp | Close | Expire
Answer = Granted | Denied | None


def decide(state: State, rules: Rules, command: Command, shard: str, now: Micros) -> tuple[LedgerEvent | None, Answer]:
    """The event that the command leads to, already applied to `state`, and the answer to give once it is durable."""
    event: LedgerEvent | None
    answer: Answer = None
    match command:
        case Reserve():
            event, answer = admission.reserve(state, rules, command, now)
        case Close():
            event = closing.close(state, rules, command.priced, now)
            state.priced = command.at
        case TrueUp():
            event = holds.true_up(state, command, now)
        case Withdraw():
            event = holds.withdraw(state, command, now)
        case Extend():
            event, answer = holds.extend(state, rules, command, now)
        case Cut():
            event = holds.cut(state, command, now)
        case Expire():
            event = closing.expire(state, command.rid, shard, rules, now)
    if event is not None:
        state.apply(event)
    return event, answer


def touched(event: LedgerEvent) -> tuple[str, ...]:
    """Budgets whose spend it moved."""
    return tuple(charge.budget_id for charge in event.charges) if isinstance(event, Entry) else ()
