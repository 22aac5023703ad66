"""What the owner's state is made of: spend by budget and period, holds of attempts in flight, marks of cut conversations."""

import msgspec

from shared.contracts.ledger import Held, Leased
from shared.contracts.message import Micros, NanoUSD

CounterKey = tuple[str, str]  # budget_id, period_id


class Counter(msgspec.Struct, gc=False):
    """One budget in one period. All three amounts are kept: which one counts is the budget's present `basis`.

    lent: the part of held that lies with edges, for attempts that they have not told of.
    """

    list_nano_usd: NanoUSD = 0
    cost_nano_usd: NanoUSD = 0
    charge_nano_usd: NanoUSD = 0
    held_nano_usd: NanoUSD = 0
    lent_nano_usd: NanoUSD = 0

    def spent(self, basis: str) -> NanoUSD:
        if basis == "cost":
            return self.cost_nano_usd
        return self.list_nano_usd if basis == "list" else self.charge_nano_usd


EMPTY = Counter()  # read only


class Hold(msgspec.Struct, gc=False):
    """Money set aside for an attempt in flight: what was granted, and what is left of it or was added since."""

    held: Held
    nano_usd: NanoUSD
    input_nano_usd: NanoUSD
    output_tokens: int
    trued_up: bool = False
    extensions: dict[int, int] = {}  # n -> output tokens granted


class Lease(msgspec.Struct, gc=False):
    """Money lent to an edge: what is left of it, by the owner's books. told: attempts that were paid from it."""

    leased: Leased
    nano_usd: NanoUSD
    told: set[str] = set()


class Mark(msgspec.Struct, frozen=True, gc=False):
    """A cut conversation that is refused at this budget until then."""

    budget_id: str
    until: Micros
