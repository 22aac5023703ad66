"""What the simulator keeps: its bill in a file, the prompt cache and the count of repeats in memory."""

import hashlib
import os
from array import array
from collections import OrderedDict
from pathlib import Path

import msgspec

from services.simulator.core.bill import Billed, BillLine, Totals
from services.simulator.core.tokens import TTL_SECONDS, Prefix, Split
from shared.contracts.pricing import PriceBook
from shared.rates import Book

# A data file of the repository, read as such: the simulator bills at the prices that pricing publishes first.
PRICE_BOOK = Path(__file__).parents[1] / "pricing" / "book.json"
MOST_PREFIXES = 200_000
MOST_REPEATS = 100_000

_billed = msgspec.json.Decoder(Billed)
_encoder = msgspec.json.Encoder()


def price_book() -> Book:
    """The list prices. Raises OSError, msgspec.ValidationError."""
    return Book(msgspec.json.decode(PRICE_BOOK.read_bytes(), type=PriceBook))


class BillFile:
    """An append-only file of JSON lines; each line is one write(), so that a killed process leaves whole lines."""

    def __init__(self, path: Path) -> None:
        """Open or create. Raises OSError, msgspec.DecodeError when the file is not a bill."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self._ends = array("Q", [0])  # byte offsets: line n lies between ends[n] and ends[n + 1]
        self.totals = Totals()
        with path.open("rb") as existing:
            for line in existing:
                self._count(len(line), _billed.decode(line))

    def append(self, line: BillLine) -> None:
        """Write one line before its answer ends. Not synced: a bill must survive kill -9, not a power cut."""
        data = _encoder.encode(line) + b"\n"
        os.write(self._file, data)
        billed = Billed(outcome=line.outcome, cost_nano_usd=line.cost_nano_usd, response_model=line.response_model)
        self._count(len(data), billed)

    def _count(self, size: int, line: Billed) -> None:
        self._ends.append(self._ends[-1] + size)
        self.totals.add(line)

    def lines(self, after: int, limit: int) -> list[msgspec.Raw]:
        """Lines number after + 1 and on, as they stand in the file."""
        first, last = min(after, len(self._ends) - 1), min(after + limit, len(self._ends) - 1)
        data = os.pread(self._file, self._ends[last] - self._ends[first], self._ends[first])
        return [msgspec.Raw(line) for line in data.splitlines()]

    def close(self) -> None:
        """After this nothing is billed."""
        os.close(self._file)


class PromptCache:
    """Which prefixes of prompts each credential has sent of late, with when they lapse (microseconds)."""

    def __init__(self) -> None:
        self._until: OrderedDict[bytes, int] = OrderedDict()

    def known(self, credential: str, line: list[Prefix], now: int) -> frozenset[bytes]:
        """Those of the prefixes that can be read."""
        return frozenset(
            prefix.digest for prefix in line if self._until.get(_owned(credential, prefix.digest), 0) > now
        )

    def keep(self, credential: str, split: Split, now: int) -> None:
        """Remember what a request has written; what it read lives on as long again."""
        for digest, ttl in split.kept:
            key = _owned(credential, digest)
            self._until[key] = max(self._until.get(key, 0), now + TTL_SECONDS.get(ttl, 300) * 1_000_000)
            self._until.move_to_end(key)
        while len(self._until) > MOST_PREFIXES:
            self._until.popitem(last=False)


def _owned(credential: str, digest: bytes) -> bytes:
    """One key's prompts are never another's."""
    return hashlib.sha256(credential.encode() + digest).digest()


class Repeats:
    """How often the same request came: a fault with `times=N` strikes its first N posts."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, int] = OrderedDict()

    def count(self, session: str, digest: str) -> int:
        """1 for the first."""
        key = f"{session} {digest}"
        self._seen[key] = self._seen.get(key, 0) + 1
        if len(self._seen) > MOST_REPEATS:
            self._seen.popitem(last=False)
        return self._seen[key]
