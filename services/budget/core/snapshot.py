"""The state as bytes, and back. Cut into parts, so that nothing else waits for more than one of them.

The first part is everything but the settled rids; the others are lists of those. Its shape is written beside it: a release
whose State differs reads none of it and replays the ledger instead, since what it adds was never gathered here.
"""

import hashlib
from collections.abc import Iterator
from itertools import islice
from typing import Any

import msgspec

from services.budget.core.closings import Closing, Closings
from services.budget.core.state import State
from shared.contracts.message import Message, Micros
from shared.contracts.streams import Position

FOLD = 1
"""Raise it when `State.apply` means something else by the same fields: older snapshots are then left alone."""
RIDS_IN_PART = 16_384


class Manifest(Message, frozen=True, kw_only=True):
    """What a snapshot is, written after its parts.

    at: the last record it holds, as a place in LEDGER; digest: of that record's bytes. shape: of the State it was made from.
    head_parts: how many of the parts are the head. checksum: SHA-256 of all parts together, before compression.
    """

    shard: str
    at: Position
    digest: bytes
    owner_epoch: int
    shape: bytes
    parts: int
    head_parts: int
    checksum: bytes
    written_at: Micros


class Captured(msgspec.Struct, frozen=True):
    """A state between two records. settled: frozen until it is thawed."""

    at: Position
    digest: bytes
    owner_epoch: int
    head: bytes
    settled: set[str]


def capture(state: State, at: Position, digest: bytes, priced: Position) -> Captured:
    """priced: as the last record has it; later duplicates there leave no record, so replay cannot know of them."""
    settled = state.closings.freeze()
    head = _encoder.encode(msgspec.structs.replace(state, priced=priced))
    return Captured(at, digest, state.owner_epoch, head, settled)


def rid_parts(settled: set[str]) -> Iterator[bytes]:
    """The settled rids in parts. Takes about a millisecond for each."""
    rids = iter(settled)
    while part := list(islice(rids, RIDS_IN_PART)):
        yield msgspec.msgpack.encode(part)


def restore(head: bytes, settled: Iterator[bytes]) -> State:
    """Raises msgspec.DecodeError."""
    state = _decoder.decode(head)
    rids: set[str] = set()
    for part in settled:
        rids.update(_rids.decode(part))
    state.closings = Closings(rids, state.closings.others)
    return state


def unsound(state: State) -> str:
    """What cannot be in a fold of any ledger; empty when all is well."""
    held: dict[tuple[str, str], int] = {}
    lent: dict[tuple[str, str], int] = {}
    for lease in state.leases.values():
        for charge in lease.leased.terms.charges:
            key = (charge.budget_id, charge.period_id)
            held[key] = lent[key] = lent.get(key, 0) + lease.nano_usd
    for rid, hold in state.holds.items():
        if rid in state.closings:
            return f"{rid} is both held and closed"
        for charge in hold.held.charges:
            key = (charge.budget_id, charge.period_id)
            held[key] = held.get(key, 0) + hold.nano_usd
    for key, counter in state.counters.items():
        if counter.held_nano_usd != held.pop(key, 0):
            return f"{key[0]} in {key[1]} holds {counter.held_nano_usd} nano-USD, which is not the sum of its holds"
        if counter.lent_nano_usd != lent.get(key, 0):
            return f"{key[0]} in {key[1]} has lent {counter.lent_nano_usd} nano-USD, which is not what its leases have"
        if min(counter.list_nano_usd, counter.cost_nano_usd, counter.charge_nano_usd, counter.held_nano_usd) < 0:
            return f"{key[0]} in {key[1]} has a negative amount"
    if overdrawn := next((name for name, lease in state.leases.items() if lease.nano_usd < 0), ""):
        return f"lease {overdrawn} is overdrawn"
    return f"{next(iter(held))} has holds but no counter" if any(held.values()) else ""


def _encode_closings(value: object) -> object:
    if isinstance(value, Closings):
        return value.others
    raise NotImplementedError(type(value))


def _decode_closings(kind: type, value: object) -> Any:
    if kind is Closings:
        return Closings(others=msgspec.convert(value, dict[str, Closing]))
    raise NotImplementedError(kind)


def _shape_of(kind: type[msgspec.Struct]) -> bytes:
    """Names and types of all fields, through all structs below."""
    lines, seen = [f"fold {FOLD}"], set[type]()
    waiting: list[type[msgspec.Struct]] = [kind, Closing]
    while waiting:
        struct = waiting.pop(0)
        if struct in seen:
            continue
        seen.add(struct)
        for field in msgspec.structs.fields(struct):
            lines.append(f"{struct.__name__}.{field.encode_name}: {field.type}")
            waiting += _structs_in(field.type)
    return hashlib.sha256("\n".join(lines).encode()).digest()


def _structs_in(annotation: Any) -> list[type[msgspec.Struct]]:
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return [annotation]
    return [found for argument in getattr(annotation, "__args__", ()) for found in _structs_in(argument)]


_encoder = msgspec.msgpack.Encoder(enc_hook=_encode_closings)
_decoder = msgspec.msgpack.Decoder(State, dec_hook=_decode_closings)
_rids = msgspec.msgpack.Decoder(list[str])
SHAPE = _shape_of(State)
