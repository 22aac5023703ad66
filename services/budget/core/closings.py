"""Every attempt that was ever closed, so that a duplicate is never booked twice, whenever it comes."""

from collections.abc import Iterator, MutableMapping
from itertools import chain

import msgspec

from shared.contracts.attribution import Charge
from shared.contracts.message import Micros, NanoUSD, Uid
from shared.contracts.pricing import PricedLine


class Closing(msgspec.Struct, frozen=True):
    """How an attempt was closed, by the best record so far. n: number of its last entry.

    The rest is needed to correct it and empty once settled, since nothing better can come.
    """

    kind: str
    n: int = 0
    charges: tuple[Charge, ...] = ()
    admitted_at: Micros = 0
    list_nano_usd: NanoUSD = 0
    cost_nano_usd: NanoUSD = 0
    charge_nano_usd: NanoUSD = 0
    lines: tuple[PricedLine, ...] = ()
    org: Uid = ""


SETTLED = Closing("settled")  # one object for nearly all rids


class Closings(MutableMapping[str, Closing]):
    """By rid. Nearly all are SETTLED and stay so: those are a bare set, which can be frozen while a snapshot is written.

    others: the few that may still be corrected, or were. While frozen, what is settled goes to a set of its own: copying
    a million rids would keep every request waiting.
    """

    def __init__(self, settled: set[str] | None = None, others: dict[str, Closing] | None = None) -> None:
        self.others = others or {}
        self._settled = settled or set()
        self._since: set[str] | None = None

    def freeze(self) -> set[str]:
        """The rids settled so far. The set is not touched until thaw()."""
        assert self._since is None, "one snapshot at a time"
        self._since = set()
        return self._settled

    def thaw(self) -> None:
        if self._since is not None:
            self._settled |= self._since
            self._since = None

    def __contains__(self, rid: object) -> bool:
        return rid in self._settled or rid in self.others or (self._since is not None and rid in self._since)

    def __getitem__(self, rid: str) -> Closing:
        found = self.others.get(rid)
        if found is None:
            if rid not in self:
                raise KeyError(rid)
            return SETTLED
        return found

    def __setitem__(self, rid: str, closing: Closing) -> None:
        if closing != SETTLED or rid in self.others:
            self.others[rid] = closing
        elif self._since is None:
            self._settled.add(rid)
        elif rid not in self._settled:
            self._since.add(rid)

    def __delitem__(self, rid: str) -> None:
        raise ValueError(f"{rid}: what is closed is never forgotten")

    def __iter__(self) -> Iterator[str]:
        settled = self._all_settled()
        return chain(settled, (rid for rid in self.others if rid not in settled))

    def __len__(self) -> int:
        settled = self._all_settled()
        return len(settled) + sum(1 for rid in self.others if rid not in settled)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Closings):
            return NotImplemented
        return self.others == other.others and self._all_settled() == other._all_settled()

    __hash__ = None  # type: ignore[assignment]  # it changes

    def _all_settled(self) -> set[str]:
        return self._settled | self._since if self._since else self._settled
