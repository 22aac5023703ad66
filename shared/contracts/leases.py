"""Budget lends money in advance, so that an edge far from the cap admits attempts by itself, also while budget is away."""

from shared.contracts.attribution import Charge
from shared.contracts.budget import Reserve, Standing
from shared.contracts.message import Message, Micros, NanoUSD, Part, PicoUSD

LEASE = "budget.{shard}.lease"  # request/reply: LeaseAsked -> LeaseAnswered
DRAW = "budget.{shard}.draw"  # request/reply: Drawn -> budget.Done, its rid the lease
RETURN = "budget.{shard}.return"  # request/reply: Returning -> budget.Done, its rid the lease


class Terms(Part, frozen=True, kw_only=True):
    """What was lent, and how attempts on it are sized: at their bound, for prompts of any size.

    until: not to be drawn on from then: prices may change, or a period ends. charges: of every attempt on it.
    *_pico_usd: for one token, the dearest that can apply. standings: as they were when it was lent.
    """

    nano_usd: NanoUSD
    until: Micros
    charges: tuple[Charge, ...]
    at_cap: str
    input_pico_usd: PicoUSD
    output_pico_usd: PicoUSD
    tokens_per_100_bytes: int
    standings: tuple[Standing, ...] = ()
    price_version: str = ""


class LeaseAsked(Message, frozen=True, kw_only=True):
    """Ask for money for attempts of one kind. Idempotent by `lease`, an id that the edge makes: ask again after a timeout.

    like: one of them; what differs only in its size and its conversation is of the same kind. attempts: how many.
    """

    lease: str
    like: Reserve
    attempts: int


class LeaseAnswered(Message, frozen=True, kw_only=True):
    """terms: None when nothing is lent now: too near to a cap, or something on the path that only budget can decide."""

    lease: str
    owner_epoch: int
    terms: Terms | None = None


class Draw(Part, frozen=True, kw_only=True):
    """One attempt that the edge has admitted: its bound, in tokens and money."""

    ask: Reserve
    admitted_at: Micros
    nano_usd: NanoUSD
    input_nano_usd: NanoUSD
    input_tokens: int
    output_tokens: int


class Drawn(Message, frozen=True, kw_only=True):
    """Attempts admitted on a lease, told afterwards: they become holds, paid from the lease. Idempotent by their rids."""

    lease: str
    draws: tuple[Draw, ...]


class Returning(Message, frozen=True, kw_only=True):
    """The edge will not draw on it again, and all that it drew is told: what is left is free. Idempotent by `lease`."""

    lease: str
    edge: str
    epoch: int
