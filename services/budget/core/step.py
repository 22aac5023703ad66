"""One command, one decision: the same door for the owner's loop, for tests and for simulations."""

from collections.abc import Iterable

import msgspec

from services.budget.core import closing, holds, leases, moves, turns
from services.budget.core.group import Group
from services.budget.core.leases import NOTHING, GiveBack, Lend, Lent
from services.budget.core.moves import Arrive, Depart, HandOver, Move, PassOn
from services.budget.core.state import State
from shared.contracts.budget import Cut, Denied, Extend, Granted, Queued, Reserve, TrueUp, Withdraw
from shared.contracts.leases import Drawn
from shared.contracts.ledger import Entry, LedgerEvent, Spent, TruedUp, Withdrawn
from shared.contracts.pricing import UsagePriced
from shared.contracts.streams import Position


class Close(msgspec.Struct, frozen=True):
    """A record of PRICED and where it stands there; None for one that another shard passes on."""

    priced: UsagePriced
    at: Position | None


class Expire(msgspec.Struct, frozen=True):
    """No edge has listed this attempt for too long."""

    rid: str


class Silent(msgspec.Struct, frozen=True):
    """Not an answer: the organisation is on its way, or lives elsewhere; who asks will ask again, and where it lives then."""


SILENT = Silent()
Command = Reserve | Withdraw | Extend | Cut | TrueUp | Close | Expire | Lend | Drawn | GiveBack | Move
Answer = Granted | Denied | Queued | Lent | Silent | None


def decide(group: Group, command: Command) -> Answer:
    """The answer to give once all that came of it is durable: that is in the group, and applied to its state."""
    state, now = group.state, group.now
    if is_elsewhere(group, command):
        return SILENT
    match command:
        case Reserve():
            return turns.reserve(group, command)
        case Extend():
            return turns.extend(group, command)
        case Withdraw():
            _apply(group, holds.withdraw(state, command, now))
        case Close():
            _apply(group, closing.close(state, group.rules, command.priced, now))
            state.priced = command.at or state.priced
        case TrueUp():
            _apply(group, holds.true_up(state, command, now))
        case Cut():
            _apply(group, holds.cut(state, command, now))
        case Expire():
            _apply(group, closing.expire(state, command.rid, group.shard, group.rules, now))
        case Lend():
            return NOTHING if _is_away(group, command.ask.like.principal.org) else leases.lend(group, command)
        case Drawn():
            leases.draw(group, command)
        case GiveBack():
            leases.give_back(group, command)
        case Depart() | Arrive() | HandOver() | PassOn():
            moves.decide(group, command)
    return None


def is_elsewhere(group: Group, command: Command) -> bool:
    """Whether another shard has to decide it, or nobody may at this moment."""
    orgs: Iterable[str]
    match command:
        case Close():
            return _is_closed_elsewhere(group, command)
        case Reserve() | Cut():
            name, orgs = command.rid, (command.principal.org,)
        case Extend() | Withdraw():
            name, orgs = command.rid, (command.org,)
        case Drawn():
            name, orgs = command.lease, {each.ask.principal.org for each in command.draws}
        case GiveBack():
            name, orgs = command.lease, ()
        case _:
            return False
    return name in group.state.moved or any(_is_away(group, org) for org in orgs)


def _is_closed_elsewhere(group: Group, command: Close) -> bool:
    usage = command.priced.usage
    away = _is_away(group, usage.principal.org) and not is_settled(group.state, usage.rid)
    assert command.at is None or not away, "what PRICED tells of who is elsewhere is held back"
    return away


def is_settled(state: State, rid: str) -> bool:
    """Whether nothing better can come of it."""
    closing = state.closings.get(rid)
    return closing is not None and closing.kind == "settled"


def _is_away(group: Group, org: str) -> bool:
    if group.state.stays and (stay := group.state.stays.get(org)):  # perhaps since a moment ago
        return stay.phase != "here"
    return group.rules.catalogue.elsewhere(org)


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
