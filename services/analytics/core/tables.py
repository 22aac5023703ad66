"""A table as the sink sees it: each column with its type and the value that a source has for it."""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import msgspec

S = TypeVar("S")


class Column(msgspec.Struct, Generic[S], frozen=True):
    """type: as in the migration. DateTime64(6) takes microseconds."""

    name: str
    type: str
    value: Callable[[S], object]


class Table(msgspec.Struct, Generic[S], frozen=True):
    """Every column of the table, in any order."""

    name: str
    columns: tuple[Column[S], ...]

    def pivot(self, sources: Sequence[S]) -> list[list[object]]:
        """One list of values per column."""
        return [[column.value(source) for source in sources] for column in self.columns]
