"""What each log's messages become: pieces of rows, each of one partition of its table."""

from collections.abc import Callable

from services.analytics.core.directory import DirectoryRow, Names
from services.analytics.core.inserts import Piece, month
from services.analytics.core.requests import RequestRow, request_time
from services.analytics.core.usage import UsageRow, usage_rows
from shared.bus import Stored
from shared.contracts.config import ConfigChanged
from shared.contracts.edge import RequestCompleted
from shared.contracts.ledger import Commit
from shared.contracts.message import Decoder

_commit = Decoder(Commit)
_completed = Decoder(RequestCompleted)
_changed = Decoder(ConfigChanged)


def usage_pieces(log_id: str) -> Callable[[Stored], list[Piece[UsageRow]]]:
    """LEDGER. Partitioned by the time of the commit, which all its entries share."""

    def expand(stored: Stored) -> list[Piece[UsageRow]]:
        commit = _commit.decode(stored.data)
        return [Piece(stored.seq, month(commit.at), list(usage_rows(commit, log_id, stored.seq)))]

    return expand


def request_pieces(log_id: str) -> Callable[[Stored], list[Piece[RequestRow]]]:
    """REQUESTS. Partitioned by the time of the request, so that a repeat of it falls into the same partition.

    A bundle over the turn of a month becomes two pieces. Rows of the first do not say that all of the message is in: after a
    crash between the two it is read again, and the key folds what is there already.
    """

    def expand(stored: Stored) -> list[Piece[RequestRow]]:
        by_month: dict[str, list[RequestCompleted]] = {}
        for request in _completed.decode_all(stored.data):
            by_month.setdefault(month(request_time(request)), []).append(request)
        pieces: list[Piece[RequestRow]] = []
        for name, requests in by_month.items():
            seq = stored.seq if len(pieces) + 1 == len(by_month) else stored.seq - 1
            pieces.append(Piece(stored.seq, name, [RequestRow(request, log_id, seq) for request in requests]))
        return pieces

    return expand


def directory_pieces(log_id: str) -> Callable[[Stored], list[Piece[DirectoryRow]]]:
    """CONFIG, from its beginning. Not partitioned."""
    names = Names(log_id)

    def expand(stored: Stored) -> list[Piece[DirectoryRow]]:
        return [Piece(stored.seq, "", names.fold(_changed.decode(stored.data), stored.seq))]

    return expand
