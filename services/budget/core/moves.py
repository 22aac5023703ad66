"""An organisation moves from one shard to another: what is next for it here, and the events that make it so.

CONFIG tells where each was to live from which revision on. Each of these moves is made, one after the other, by the owners
of the two shards: the first lets go of it for good, and only then the second takes it up, part by part.
"""

from collections.abc import Sequence

import msgspec

from services.budget.core.group import Group
from services.budget.core.luggage import Stay
from shared.contracts.budget import LuggagePart
from shared.contracts.ledger import Arrived, Departed, HandedOver, PassedOn
from shared.contracts.message import Uid
from shared.contracts.streams import Position

Home = tuple[int, str]  # from this revision of CONFIG on, this shard


class Depart(msgspec.Struct, frozen=True):
    """As the event."""

    org: Uid
    move: int
    to: str
    uids: tuple[Uid, ...]
    whole: bool


class Arrive(msgspec.Struct, frozen=True):
    """A part of what the shard `source` kept for us."""

    source: str
    part: LuggagePart


class HandOver(msgspec.Struct, frozen=True):
    """The other shard has said that it has all of it."""

    org: Uid
    move: int


class PassOn(msgspec.Struct, frozen=True):
    """The shard `to` has booked this record of PRICED. settled: nothing better can come."""

    rid: str
    to: str
    settled: bool
    at: Position


Move = Depart | Arrive | HandOver | PassOn


class Leave(msgspec.Struct, frozen=True):
    """What is next: let it go to this shard."""

    move: int
    to: str


class Come(msgspec.Struct, frozen=True):
    """What is next: fetch it from this shard."""

    move: int
    source: str


def next_step(homes: Sequence[Home], stay: Stay | None, shard: str) -> Leave | Come | None:
    """homes: all that CONFIG tells of one organisation, the first where it was made."""
    if stay is None:
        is_here, at = homes[0][1] == shard, 0
    else:
        is_here, at = stay.phase in ("here", "leaving"), _index(homes, stay.move)
        at -= stay.phase in ("leaving", "coming")  # that very move is not over
    for (_, before), (move, after) in zip(homes[at:], homes[at + 1 :], strict=False):
        if is_here:
            return Leave(move, after)
        if after == shard:
            return Come(move, before)
    return None


def _index(homes: Sequence[Home], move: int) -> int:
    return next(index for index, (since, _) in enumerate(homes) if since == move)


def decide(group: Group, command: Move) -> None:
    match command:
        case Depart():
            _depart(group, command)
        case Arrive():
            _arrive(group, command)
        case HandOver():
            stay = group.state.stays.get(command.org)
            if stay and (stay.move, stay.phase) == (command.move, "left"):
                group.apply(HandedOver(org=command.org, move=command.move, at=group.now))
        case PassOn():
            group.state.priced = command.at
            if command.settled and command.rid not in group.state.closings:
                group.apply(PassedOn(rid=command.rid, to=command.to, at=group.now))


def _depart(group: Group, command: Depart) -> None:
    state, org = group.state, command.org
    stay = state.stays.get(org)
    if stay and (stay.move > command.move or (stay.move == command.move and stay.phase != "leaving")):
        return
    rids = [rid for rid, waiter in group.line.waiters.items() if waiter.applicant.ask.principal.org == org]
    rids += [rid for rid in group.line.wishes if rid in state.holds and state.holds[rid].held.principal.org == org]
    group.line.leave_all(frozenset(rids))  # they hear nothing, and ask again where it lives then
    group.apply(
        Departed(org=org, move=command.move, to=command.to, uids=command.uids, whole=command.whole, at=group.now)
    )


def _arrive(group: Group, command: Arrive) -> None:
    """Each part once, in order."""
    part, stay = command.part, group.state.stays.get(command.part.org)
    if stay and (stay.move > part.move or (stay.move == part.move and stay.phase != "coming")):
        return
    if part.after != (stay.pieces if stay and stay.move == part.move else 0):
        return
    group.apply(
        Arrived(
            org=part.org,
            move=part.move,
            source=command.source,
            after=part.after,
            pieces=part.pieces,
            data=part.data,
            whole=part.whole,
            at=group.now,
        )
    )
