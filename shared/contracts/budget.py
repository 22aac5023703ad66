"""Budget holds money before a call, books the true cost after it, and tells every edge who may not spend.

The protocol and its promises are explained in docs/ledger.md.
"""

from shared.contracts.attribution import Charge, Principal
from shared.contracts.message import Message, Micros, NanoUSD, Part, Uid

RESERVE = "budget.{shard}.reserve"  # request/reply: Reserve -> Verdict
WITHDRAW = "budget.{shard}.withdraw"  # request/reply: Withdraw -> Done
EXTEND = "budget.{shard}.extend"  # request/reply: Extend -> Verdict
CUT = "budget.{shard}.cut"  # request/reply: Cut -> Done
TRUEUP = "budget.{shard}.trueup"  # event, may be lost: TrueUp
BALANCES = "budget.{shard}.balances"  # request/reply: BalancesAsked -> Balances
ACKNOWLEDGED = "budget.{shard}.acknowledged"  # request/reply: AcknowledgedAsked -> Acknowledged
CHANGED = "budget.{shard}.changed"  # event, not stored: Changed
LUGGAGE = "budget.{shard}.luggage"  # request/reply, between owners: LuggageAsked -> LuggagePart
CLOSE = "budget.{shard}.close"  # request/reply, between owners: pricing.UsagePriced -> Done
DEFAULT_SHARD = "0"


class Bound(Part, frozen=True, kw_only=True):
    """What the body shows about the size of one meter.

    meter: text_bytes (UTF-8 bytes of prompt that may become tokens), input_tokens (counted by the provider),
        image, page (PDF), web_search (most searches the body allows), unboundable (inputs by URL or file, server loops).
    """

    meter: str
    quantity: int


class Reserve(Message, frozen=True, kw_only=True):
    """Ask to hold what one upstream attempt could cost. Idempotent by `rid`: ask again after a timeout.

    epoch: the edge's start; waited_ms: how long this rid has been asking, so that a restart costs nobody their turn.
    may_wait: the client can stand in line. hold_class: call, stream, job.
    speed, geo, cache_ttl: as the body asks for them (standard|fast, ""|us|global, ""|5m|1h).
    max_tokens: 0 when the body gives none. body_digest: as in `shared.digest`.
    retry: the client tries again what the provider has failed, so it counts on no limit of requests.
    """

    rid: str
    request_id: str
    attempt: int
    edge: str
    epoch: int
    config_rev: int
    principal: Principal
    provider: Uid
    model: str
    max_tokens: int
    bounds: tuple[Bound, ...]
    input_bytes: int
    stream: bool
    replaces_rid: str = ""
    session: str = ""
    agent: str = ""
    operation: str = "messages"
    credential: str = ""
    speed: str = "standard"
    geo: str = ""
    cache_ttl: str = ""
    body_digest: bytes = b""
    may_wait: bool = True
    waited_ms: int = 0
    hold_class: str = "call"
    visible_output: bool = True
    retry: bool = False


class Standing(Part, frozen=True, kw_only=True):
    """How full one budget is at a grant. Utilization: what is spent, in parts per million of the limit."""

    budget_id: str
    period: str
    utilization_ppm: int
    surpassed_ppm: int
    resets_at: Micros


class Granted(Part, frozen=True, kw_only=True, tag="granted"):
    """Go ahead. The stream must be cut at held_output_tokens; remaining is the least over the hard budgets.

    at_cap: the strictest of the path: cut or finish. standings: the fullest budget first; empty without budgets.
    limited_by: the budget whose room made the hold smaller than the bound; "" when it is the bound.
    held_input_nano_usd: the part of held_nano_usd that is for the input.
    lease: whose money it is, where the edge admitted it by itself.
    """

    held_input_tokens: int
    held_output_tokens: int
    held_nano_usd: NanoUSD
    charges: tuple[Charge, ...]
    at_cap: str
    remaining_nano_usd: NanoUSD
    standings: tuple[Standing, ...]
    admitted_at: Micros
    owner_epoch: int
    limited_by: str = ""
    held_input_nano_usd: NanoUSD = 0
    lease: str = ""


class Denied(Part, frozen=True, kw_only=True, tag="denied"):
    """No. reason: spent, busy (held by calls in flight), unpriced, unboundable, unknown (the key is not in CONFIG),
    too_late (the rid was closed or withdrawn), rate_limited.

    resets_at 0: never. retry_after_s: how long the client should wait.
    With rate_limited, budget_id is the limit's id `scope:scope_uid:name[:pattern]`, rate_limit its name
    (`requests_per_minute`), and amounts are requests or tokens: rate_asked is what this attempt would add. It fits at
    resets_at; when it asks for more than rate_most, never.
    """

    budget_id: str
    reason: str
    limit_nano_usd: NanoUSD
    spent_nano_usd: NanoUSD
    held_nano_usd: NanoUSD
    need_nano_usd: NanoUSD
    input_bound: int
    resets_at: Micros
    retry_after_s: int
    contact: str
    owner_epoch: int
    at_cap: str = "cut"
    rate_limit: str = ""
    rate_most: int = 0
    rate_used: int = 0
    rate_asked: int = 0


class Queued(Part, frozen=True, kw_only=True, tag="queued"):
    """Wait: the verdict will come on `edge.<id>.verdict`; ask again with the same rid (and n) to keep the turn."""

    ahead: int
    owner_epoch: int


class Verdict(Message, frozen=True, kw_only=True):
    """The answer to Reserve and Extend; late ones come on `edge.<id>.verdict`. Edges ignore those of an older owner_epoch.

    n: of the Extend that it answers; 0 for a Reserve. shard: whose epoch it is; an organisation may move meanwhile.
    """

    rid: str
    answer: Granted | Denied | Queued
    n: int = 0
    shard: str = ""


class Withdraw(Message, frozen=True, kw_only=True):
    """The client is gone or the edge gives up before anything was sent: leave a tombstone. Idempotent by `rid`."""

    rid: str
    edge: str
    epoch: int
    org: Uid = ""


class Extend(Message, frozen=True, kw_only=True):
    """Ask for more output than is held; n counts from 1. Idempotent by (rid, n): ask again until answered.

    Granted holds what came on top (held_output_tokens, perhaps less than asked for: what there was) and the whole hold
    (held_nano_usd). Queued: it goes before everybody who waits for a first grant.
    """

    rid: str
    n: int
    output_tokens: int
    org: Uid = ""


class Cut(Message, frozen=True, kw_only=True):
    """Said before a stream is ended at the cap, so that the client's re-send is refused at once. Idempotent by `rid`."""

    rid: str
    budget_id: str
    principal: Principal
    session: str = ""
    agent: str = ""
    body_digest: bytes = b""


class Done(Message, frozen=True, kw_only=True):
    """Done, durably."""

    rid: str
    owner_epoch: int


class TrueUp(Message, frozen=True, kw_only=True):
    """The provider has counted the input: give back the unused part of the input hold.

    input_tokens: of all input classes together; nano_usd: their price at the hold's rates.
    """

    rid: str
    input_tokens: int
    nano_usd: NanoUSD


class BalancesAsked(Message, frozen=True, kw_only=True):
    """Ask for the balances of an organisation's budgets; ids empty: all. Paged, at most `limit` at a time."""

    org: Uid = ""
    budget_ids: tuple[str, ...] = ()
    offset: int = 0
    limit: int = 500


class Balance(Part, frozen=True, kw_only=True):
    """One budget in its current period. resets_at 0: never.

    limit_nano_usd: what may be spent in all: the rule's limit + rolled_over + granted. held_nano_usd: also by calls of
    the period before, as far as they tie what would roll over.
    """

    budget_id: str
    scope: str
    scope_uid: Uid
    period: str
    period_id: str
    mode: str
    limit_nano_usd: NanoUSD
    spent_nano_usd: NanoUSD
    held_nano_usd: NanoUSD
    resets_at: Micros
    blocked: bool = False
    rolled_over_nano_usd: NanoUSD = 0
    granted_nano_usd: NanoUSD = 0


class Balances(Message, frozen=True, kw_only=True):
    """total: of all pages. config_rev: the organisation these balances are measured against."""

    items: tuple[Balance, ...]
    total: int
    config_rev: int
    owner_epoch: int


class AcknowledgedAsked(Message, frozen=True, kw_only=True):
    """Ask how far the owner has come, and who has not yet acknowledged its decisions."""


class Acknowledged(Message, frozen=True, kw_only=True):
    """config_rev: it decides by this revision, durably. lagging: edges with a decision that they have not acknowledged.

    moving: organisations on their way from or to this shard.
    """

    config_rev: int
    decision_version: int
    owner_epoch: int
    lagging: tuple[Uid, ...] = ()
    moving: tuple[Uid, ...] = ()


class LuggageAsked(Message, frozen=True, kw_only=True):
    """Ask the shard that an organisation leaves for its state, from the piece after so many. after -1: all of it is here."""

    org: Uid
    move: int
    after: int


class LuggagePart(Message, frozen=True, kw_only=True):
    """As in ledger.Arrived."""

    org: Uid
    move: int
    after: int
    pieces: int
    data: bytes
    whole: bool


class Changed(Message, frozen=True, kw_only=True):
    """A balance crossed one of its alert thresholds, or was blocked or unblocked."""

    balance: Balance
    threshold_ppm: int
    at: Micros


class ShardOwned(Message, frozen=True, kw_only=True):
    """Who has a shard: the value of its key in OWNERS, written several times a second. A hint; LEDGER says who may write.

    replica: its name, "" for one that is meant to be alone. incarnation: of this start; "" when the shard was given up.
    """

    shard: str
    replica: str
    incarnation: str
    owner_epoch: int


class Decision(Message, frozen=True, kw_only=True):
    """Who may not spend, pushed to every edge and kept as last value per scope in DECISIONS.

    scope: `scope:scope_uid`. state: block, unblock, step_down. version rises strictly.
    until: when it lapses by itself, 0 never. denied: the refusal to give, with block.
    move: the revision of CONFIG that brought the organisation to the shard that decides, 0 where it always lived there. Of
        two decisions the one with the greater (move, owner_epoch, version) counts: epochs of two shards do not compare.
    """

    scope: str
    state: str
    version: int
    owner_epoch: int
    until: Micros = 0
    denied: Denied | None = None
    move: int = 0
