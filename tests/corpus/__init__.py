"""Ledgers that releases have written under `kill -9`, kept for ever: every later release must replay them (ledger.md 8.6).

`make chaos-corpus` records one more, named for the version; a file that was released is never written again.
"""

import gzip
from pathlib import Path

import msgspec

HERE = Path(__file__).parent
_SUFFIX = ".ledger.gz"


class Balance(msgspec.Struct, frozen=True, array_like=True):
    """As the owner told it, when all was at rest."""

    budget_id: str
    period_id: str
    spent_nano_usd: int
    held_nano_usd: int


class Ledger(msgspec.Struct, frozen=True):
    """records: the bytes of LEDGER, in order. closings: how many entries of each kind there are."""

    version: str
    records: tuple[bytes, ...]
    balances: tuple[Balance, ...]
    closings: dict[str, int]


def kept() -> list[str]:
    """Names of all there are."""
    return sorted(path.name.removesuffix(_SUFFIX) for path in HERE.glob(f"*{_SUFFIX}"))


def read(name: str) -> Ledger:
    return msgspec.msgpack.decode(gzip.decompress((HERE / f"{name}{_SUFFIX}").read_bytes()), type=Ledger)


def keep(ledger: Ledger) -> None:
    """Raises FileExistsError: what was released stays as it is."""
    with (HERE / f"{ledger.version}{_SUFFIX}").open("xb") as file:
        file.write(gzip.compress(msgspec.msgpack.encode(ledger), mtime=0))
