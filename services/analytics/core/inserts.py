"""How rows are cut into inserts, and where in a log to go on after a start."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Generic, TypeVar

import msgspec

from shared.contracts.streams import Position

R = TypeVar("R")


class Piece(msgspec.Struct, Generic[R], frozen=True):
    """Rows of one message, which all belong to one partition."""

    seq: int
    partition: str
    rows: list[R]


class Insert(msgspec.Struct, Generic[R], frozen=True):
    """One atomic insert: pieces, in the log's order, of one partition. The token makes a repeat harmless."""

    first_seq: int
    last_seq: int
    partition: str
    rows: list[R]

    def token(self, log_id: str) -> str:
        return f"{log_id}:{self.first_seq}-{self.last_seq}:{self.partition}"


def cut(pieces: Iterable[Piece[R]], most_rows: int) -> Iterator[Insert[R]]:
    """A new insert begins where the partition changes or the rows would become too many; no piece is divided.

    An insert into two partitions would be two parts, and a crash between them would leave a hole below the highest
    position. Messages without rows make no insert.
    """
    gathered: list[Piece[R]] = []
    count = 0
    for piece in pieces:
        if not piece.rows:
            continue
        if gathered and (piece.partition != gathered[0].partition or count + len(piece.rows) > most_rows):
            yield _insert(gathered)
            gathered, count = [], 0
        gathered.append(piece)
        count += len(piece.rows)
    if gathered:
        yield _insert(gathered)


def _insert(pieces: list[Piece[R]]) -> Insert[R]:
    return Insert(pieces[0].seq, pieces[-1].seq, pieces[0].partition, [row for piece in pieces for row in piece.rows])


def month(micros: int) -> str:
    """The partition that ClickHouse's toYYYYMM gives."""
    return datetime.fromtimestamp(micros // 1_000_000, UTC).strftime("%Y%m")


class Resume(msgspec.Struct, frozen=True):
    """Read on after this sequence. alarm: empty, log_replaced, log_shortened."""

    after: int
    alarm: str = ""


def resume(held: Mapping[str, int], end: Position) -> Resume:
    """Where to go on.

    held: the highest sequence in the table, by log_id. end: of the log as it is now.
    A log of another incarnation, or one that ends before what the table has, is read from its beginning: repeats are
    folded by the table's key, a gap could never be filled. What the table has from elsewhere stays, and an alarm is raised.
    """
    if not held:
        return Resume(0)
    if end.log_id not in held:
        return Resume(0, "log_replaced")
    if held[end.log_id] > end.seq:
        return Resume(0, "log_shortened")
    return Resume(held[end.log_id])
