"""The provider's bill: one line per attempt, billable or not."""

from typing import Any

import msgspec

from services.simulator.core import usage
from services.simulator.core.faults import Outcome
from services.simulator.core.usage import Account
from shared.contracts.edge import Line
from shared.rates import Book, Overrides, Terms, price

NO_OVERRIDES = Overrides()


class BillLine(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt.

    at: RFC 3339, when the request came. messages digest as `body_digest`, the whole body's SHA-256 as `body_sha256`, both
    in hexadecimal; empty where the body was no request. usage: what is billed, as an object of the provider's.
    generated_output_tokens: made before it ended. sent_chunks: events that went out. unpriced: some line has no rate,
    and was priced at the dearest of its family.
    """

    at: str
    request_id: str
    session_id: str
    agent_id: str
    body_digest: str
    body_sha256: str
    model: str
    response_model: str
    stream: bool
    status: int
    outcome: Outcome
    usage: dict[str, Any]
    lines: tuple[dict[str, Any], ...]
    cost_nano_usd: int
    sent_chunks: int
    generated_output_tokens: int
    error_type: str = ""
    unpriced: bool = False


class Totals(msgspec.Struct, kw_only=True):
    """The bill so far. by_model: nano-USD by response model."""

    count: int = 0
    billed: int = 0
    cost_nano_usd: int = 0
    by_model: dict[str, int] = msgspec.field(default_factory=dict)
    by_outcome: dict[str, int] = msgspec.field(default_factory=dict)

    def add(self, line: "Billed") -> None:
        """Count one more line."""
        self.count += 1
        self.by_outcome[line.outcome] = self.by_outcome.get(line.outcome, 0) + 1
        if line.cost_nano_usd:
            self.billed += 1
            self.cost_nano_usd += line.cost_nano_usd
            self.by_model[line.response_model] = self.by_model.get(line.response_model, 0) + line.cost_nano_usd


class Billed(msgspec.Struct, frozen=True, kw_only=True):
    """What the totals need of a line, as it is read back from the file."""

    outcome: str
    cost_nano_usd: int
    response_model: str = ""


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """The price of one attempt."""

    nano_usd: int
    lines: tuple[dict[str, Any], ...]
    unpriced: bool


def nano_usd(lines: tuple[Line, ...], book: Book, at: int) -> int:
    """List price, rounded up once. at: microseconds, decides the rate card."""
    return price(lines, Terms(at=at), book, NO_OVERRIDES).list_nano_usd


def cost(account: Account, book: Book, at: int) -> Cost:
    """The price of one attempt with its lines, each with the rate that priced it."""
    priced = price(usage.lines(account), Terms(at=at), book, NO_OVERRIDES)
    found = tuple(
        {
            "meter": each.line.meter,
            "quantity": each.line.quantity,
            "model": each.line.model,
            "iteration": each.line.iteration,
            "rate_id": each.rate_id,
            "pico_usd": each.list_pico_usd,
        }
        for each in priced.lines
    )
    return Cost(nano_usd=priced.list_nano_usd, lines=found, unpriced=priced.unpriced)


def sold_fast(book: Book, model: str, at: int) -> bool:
    """Whether the model has a fast speed; others silently run at standard."""
    return bool(book.cards("anthropic", model, "fast", at))
