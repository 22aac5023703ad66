"""The hash chain: how a page follows another, and how a chain is checked without us."""

import hashlib
from collections.abc import Iterable

import msgspec

from shared.contracts.audit import AuditEntry, AuditPage
from shared.contracts.message import Decoder, Micros, UnknownVersion, encode
from shared.contracts.streams import Position

GENESIS = bytes(32)
PAGE_BYTES = 880_000  # JetStream refuses above 1 MiB; the frame and the positions need room too

_page = Decoder(AuditPage)
_encoder = msgspec.msgpack.Encoder()


class Tail(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a chain: what the next page follows. seq: of its last page, 0 before the first."""

    seq: int = 0
    hash: bytes = GENESIS
    read: dict[str, Position] = {}


class Read(msgspec.Struct, frozen=True, kw_only=True):
    """One message of a source log and the entries it gives; none is progress all the same."""

    source: str
    position: Position
    entries: tuple[AuditEntry, ...] = ()


def tail_of(data: bytes) -> Tail:
    """From the bytes of the last page."""
    page = _page.decode(data)
    return Tail(seq=page.seq, hash=hashlib.sha256(data).digest(), read=page.read)


def next_page(
    tail: Tail, chain_id: str, entries: tuple[AuditEntry, ...], read: dict[str, Position], at: Micros
) -> tuple[bytes, Tail]:
    """The bytes of the page that follows, and the tail it makes."""
    bare = AuditPage(chain_id=chain_id, seq=tail.seq + 1, prev=tail.hash, at=at, read=read, entries=entries)
    data = encode(msgspec.structs.replace(bare, digest=hashlib.sha256(encode(bare)).digest()))
    return data, Tail(seq=bare.seq, hash=hashlib.sha256(data).digest(), read=read)


def pages(tail: Tail, chain_id: str, batch: Iterable[Read], at: Micros) -> list[tuple[bytes, Tail]]:
    """Pages below PAGE_BYTES for what was read, in order.

    A source counts as read up to a message once all entries of that message are in; one that is cut in two is known by
    its entries beyond `read`.
    """
    made: list[tuple[bytes, Tail]] = []
    read, entries, room = dict(tail.read), list[AuditEntry](), PAGE_BYTES
    for one in batch:
        for entry in one.entries:
            size = len(_encoder.encode(entry))
            if size > room:
                made.append(next_page(made[-1][1] if made else tail, chain_id, tuple(entries), dict(read), at))
                entries, room = [], PAGE_BYTES
            entries.append(entry)
            room -= size
        read[one.source] = one.position
    if entries:
        made.append(next_page(made[-1][1] if made else tail, chain_id, tuple(entries), read, at))
    return made


def unfinished(tail_pages: Iterable[bytes]) -> dict[tuple[str, int], int]:
    """(source, sequence) -> entries already in the chain, of messages that the last page's `read` does not cover."""
    found: dict[tuple[str, int], int] = {}
    read: dict[str, Position] = {}
    for data in tail_pages:
        page = _page.decode(data)
        for source, position in page.read.items():
            if read.get(source, position).log_id != position.log_id:  # another log: its sequences begin anew
                found = {name: count for name, count in found.items() if name[0] != source}
        read = page.read
        for entry in page.entries:
            name = (entry.source, entry.source_seq)
            found[name] = found.get(name, 0) + 1
    return {name: count for name, count in found.items() if name[1] > read.get(name[0], Position()).seq}


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """The chain is whole. head: SHA-256 of its last page; keep it elsewhere, to notice later that the end was cut off."""

    pages: int
    entries: int
    head: bytes


class Broken(msgspec.Struct, frozen=True, kw_only=True):
    """The first page that is not as it was written. at: its sequence in the chain, counted from 1."""

    at: int
    why: str


class Verifier:
    """Takes the pages of one chain in order; stops believing at the first wrong one."""

    def __init__(self, chain_id: str) -> None:
        self._chain_id = chain_id
        self._tail = Tail()
        self._entries = 0
        self.broken: Broken | None = None

    def feed(self, data: bytes) -> None:
        if self.broken is None and (why := self._wrong(data)):
            self.broken = Broken(at=self._tail.seq + 1, why=why)

    def _wrong(self, data: bytes) -> str:
        """Empty when this page follows."""
        try:
            page = _page.decode(data)
        except (msgspec.DecodeError, UnknownVersion, UnicodeDecodeError) as error:
            return f"not a page: {error}"
        if why := self._mismatch(page, data):
            return why
        self._tail = Tail(seq=page.seq, hash=hashlib.sha256(data).digest(), read=page.read)
        self._entries += len(page.entries)
        return ""

    def _mismatch(self, page: AuditPage, data: bytes) -> str:
        bare = encode(msgspec.structs.replace(page, digest=b""))
        went_back = _backwards(self._tail.read, page.read)
        found = (
            (encode(page) != data, "its bytes are not the ones we write"),
            (page.digest != hashlib.sha256(bare).digest(), "its content was changed"),
            (page.chain_id != self._chain_id, f"it belongs to chain {page.chain_id}"),
            (page.seq != self._tail.seq + 1, f"it is page {page.seq}: pages are missing, doubled or out of order"),
            (page.prev != self._tail.hash, "it does not follow the page before it, which was changed or replaced"),
            (bool(went_back), f"{went_back} was read backwards"),
        )
        return next((why for wrong, why in found if wrong), "")

    def result(self, head: bytes = b"") -> Verified | Broken:
        """head: of an earlier check, when it must be the last page still."""
        if self.broken:
            return self.broken
        if head and head != self._tail.hash:
            return Broken(at=self._tail.seq, why="the last page is not the one expected")
        return Verified(pages=self._tail.seq, entries=self._entries, head=self._tail.hash)


def verify(pages_in_order: Iterable[bytes], chain_id: str = "0", head: bytes = b"") -> Verified | Broken:
    verifier = Verifier(chain_id)
    for data in pages_in_order:
        verifier.feed(data)
    return verifier.result(head)


def _backwards(before: dict[str, Position], after: dict[str, Position]) -> str:
    """The source whose position fell within one incarnation of its log."""
    for source, position in before.items():
        now = after.get(source, Position())
        if now.log_id == position.log_id and now.seq < position.seq:
            return source
    return ""
