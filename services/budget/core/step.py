"""One command, one decision: the same door for the owner's loop, for tests and for simulations."""

import msgspec

from services.budget.core import closing, holds, leases, turns
from services.budget.core.group import Group
from services.budget.core.leases import GiveBack, Lend, Lent
from shared.contracts.budget import Cut, Denied, Extend, Granted, Queued, Reserve, TrueUp, Withdraw
from shared.contracts.leases import Drawn
from shared.contracts.ledger import Entry, LedgerEvent, Spent, TruedUp, Withdrawn
from shared.contracts.pricing import UsagePriced
from shared.contracts.streams import Position


class Close(msgspec.Struct, frozen=True):
    """A record of PRICED and where it stands there."""

    priced: UsagePriced
    at: Position


class Expire(msgspec.Struct, frozen=True):
    """No edge has listed this attempt for too long."""

    rid: str


Command = Reserve | Withdraw | Extend | Cut | TrueUp | Close | Expire | Lend | Drawn | GiveBack
Answer = Granted | Denied | Queued | Lent | None


def decide(group: Group, command: Command) -> Answer:
    """The answer to give once all that came of it is durable: that is in the group, and applied to its state."""
    state, now = group.state, group.now
    match command:
        case Reserve():
            return turns.reserve(group, command)
        case Extend():
            return turns.extend(group, command)
        case Withdraw():
            _apply(group, holds.withdraw(state, command, now))
        case Close():
            _apply(group, closing.close(state, group.rules, command.priced, now))
            state.priced = command.at
        case TrueUp():
            _apply(group, holds.true_up(state, command, now))
        case Cut():
            _apply(group, holds.cut(state, command, now))
        case Expire():
            _apply(group, closing.expire(state, command.rid, group.shard, group.rules, now))
        case Lend():
            return leases.lend(group, command)
        case Drawn():
            leases.draw(group, command)
        case GiveBack():
            leases.give_back(group, command)
    return None


def _apply(group: Group, event: Entry | Withdrawn | TruedUp | Spent | None) -> None:
    """Money may have come free: whose turn it is then gets in by the same record."""
    if event is None:
        return
    if not group.line:
        group.apply(event)
        return
    rid = event.usage.usage.rid if isinstance(event, Entry) else event.rid
    hold = group.state.holds.get(rid)
    look = set(touched(event))
    if hold:
        look.update(charge.budget_id for charge in hold.held.charges)
    group.apply(event)
    if rid not in group.state.holds:  # closed, perhaps without ever having been granted: it must not be granted now
        look |= group.line.unwish(rid) | group.line.leave(rid)
    turns.serve(group, sorted(look))


def touched(event: LedgerEvent) -> tuple[str, ...]:
    """Budgets whose spend it moved."""
    return tuple(charge.budget_id for charge in event.charges) if isinstance(event, Entry) else ()
