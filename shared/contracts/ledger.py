"""The ledger: the one log that money comes from. Written by budget alone, fenced by the expected sequence.

Each record of LEDGER is a Commit; replaying them in order gives the owner's state. Whoever needs rows (analytics, audit)
reads the same records.
"""

from shared.contracts.attribution import Charge, Principal
from shared.contracts.leases import Terms
from shared.contracts.message import Message, Micros, NanoUSD, Part, Uid
from shared.contracts.pricing import UsagePriced
from shared.contracts.streams import Position

LEDGER_COMMITTED = "ledger.{shard}"  # event, LEDGER: Commit


class EpochBegan(Part, frozen=True, kw_only=True, tag="epoch"):
    """An owner took the shard."""

    owner_epoch: int
    at: Micros


class Held(Part, frozen=True, kw_only=True, tag="held"):
    """Money was set aside for one attempt, booked on every charge.

    limited_by: the budget whose room made it smaller than the bound, "" when it is the bound.
    unboundable: the body did not show how large the input can become, so the hold is not trued up early.
    max_tokens: the most that the body (or else the model) allows. text_bytes: of a prompt that is text alone, else 0.
    rates: ids of the rate limits it counts on (`scope:scope_uid:name[:pattern]`); rate_tokens: counted until it is closed.
    lease: what it was paid from, where the edge admitted it by itself and told of it afterwards.
    """

    rid: str
    request_id: str
    attempt: int
    edge: str
    epoch: int
    config_rev: int
    principal: Principal
    charges: tuple[Charge, ...]
    provider: Uid
    model: str
    nano_usd: NanoUSD
    input_nano_usd: NanoUSD
    input_tokens: int
    output_tokens: int
    stream: bool
    at_cap: str
    admitted_at: Micros
    session: str = ""
    agent: str = ""
    body_digest: bytes = b""
    replaces_rid: str = ""
    price_version: str = ""
    unboundable: bool = False
    limited_by: str = ""
    max_tokens: int = 0
    text_bytes: int = 0
    rates: tuple[str, ...] = ()
    rate_tokens: int = 0
    lease: str = ""


class Extended(Part, frozen=True, kw_only=True, tag="extended"):
    """A hold grew by this much."""

    rid: str
    n: int
    nano_usd: NanoUSD
    output_tokens: int
    at: Micros


class TruedUp(Part, frozen=True, kw_only=True, tag="trued_up"):
    """The input part of a hold is now this much."""

    rid: str
    input_nano_usd: NanoUSD
    at: Micros


class Withdrawn(Part, frozen=True, kw_only=True, tag="withdrawn"):
    """The attempt will never be sent; its hold, if any, is free again and the rid is dead."""

    rid: str
    at: Micros


class Spent(Part, frozen=True, kw_only=True, tag="spent"):
    """A (key, session, agent) or body is refused at this budget for a while, after a cut."""

    rid: str
    budget_id: str
    key: Uid
    session: str
    agent: str
    body_digest: bytes
    until: Micros


class Entry(Part, frozen=True, kw_only=True, tag="entry"):
    """Money was booked: the closing entry of an attempt (`rid:0`) or a correction (`rid:n`, n >= 1, signed).

    kind: settled, recovered, void, expired (the owner's provisional entry), correction.
    held_nano_usd: the hold it released. overrun_nano_usd: by how much the cost passed that hold.
    """

    event_id: str
    kind: str
    corrects: str
    admitted_at: Micros
    booked_at: Micros
    charges: tuple[Charge, ...]
    usage: UsagePriced
    held_nano_usd: NanoUSD = 0
    overrun_nano_usd: NanoUSD = 0
    late: bool = False


class Leased(Part, frozen=True, kw_only=True, tag="leased"):
    """Money was set aside for attempts that this edge, in this life of it, may admit by itself; booked like a hold."""

    lease: str
    edge: str
    epoch: int
    principal: Principal
    provider: Uid
    model: str
    terms: Terms
    at: Micros


class Returned(Part, frozen=True, kw_only=True, tag="returned"):
    """What was left of a lease is free again, and its id is dead."""

    lease: str
    at: Micros


class LimitsApplied(Part, frozen=True, kw_only=True, tag="limits"):
    """The owner decides by this revision of CONFIG from here on."""

    config_rev: int
    at: Micros


class Lapsed(Part, frozen=True, kw_only=True, tag="lapsed"):
    """A grant ended before its period did. What was used of it (spent or held) stays allowed, the rest does not."""

    grant: Uid
    budget_id: str
    period_id: str
    used_nano_usd: NanoUSD
    at: Micros


class Decided(Part, frozen=True, kw_only=True, tag="decided"):
    """A block was set or lifted."""

    scope: str
    state: str
    version: int
    budget_id: str
    at: Micros


class Departed(Part, frozen=True, kw_only=True, tag="departed"):
    """An organisation leaves this shard: from here on nothing is decided for it here, and its state stands still.

    move: the revision of CONFIG that moves it. to: the shard that it moves to. uids: some of all that it has or ever had,
    by which its state is known. whole: with the last of them; only then may the other shard have it.
    """

    org: Uid
    move: int
    to: str
    uids: tuple[Uid, ...]
    whole: bool
    at: Micros


class Arrived(Part, frozen=True, kw_only=True, tag="arrived"):
    """A part of an organisation's state came from the shard where it lived before.

    after: how many pieces had come before it; pieces: of this part. data: they, as the budget service packs them. whole:
    with the last part; from here on this shard decides for it.
    """

    org: Uid
    move: int
    source: str
    after: int
    pieces: int
    data: bytes
    whole: bool
    at: Micros


class HandedOver(Part, frozen=True, kw_only=True, tag="handed_over"):
    """The other shard has all of an organisation that left; what was kept of it here may go."""

    org: Uid
    move: int
    at: Micros


class PassedOn(Part, frozen=True, kw_only=True, tag="passed_on"):
    """An attempt of an organisation that left was settled; its entry is in the ledger of the shard where that lives now."""

    rid: str
    to: str
    at: Micros


_OfAttempts = Held | Extended | TruedUp | Withdrawn | Spent | Entry
_OfMoves = Departed | Arrived | HandedOver | PassedOn
LedgerEvent = _OfAttempts | EpochBegan | LimitsApplied | Decided | Lapsed | Leased | Returned | _OfMoves


class Commit(Message, frozen=True, kw_only=True):
    """One durable step. digest: SHA-256 of the previous record's bytes. priced: how far PRICED is applied."""

    shard: str
    owner_epoch: int
    at: Micros
    digest: bytes
    priced: Position
    events: tuple[LedgerEvent, ...]
