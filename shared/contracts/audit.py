"""Audit keeps the tamper-evident record: one hash chain of pages per shard."""

from shared.contracts.message import Message, Micros, Part, Uid
from shared.contracts.streams import Position

AUDIT_APPEND = "audit.append.{chain}"  # event, AUDIT: AuditPage


class AuditEntry(Part, frozen=True, kw_only=True):
    """One decision or change.

    action: admitted, refused, rejected, unavailable, block, unblock, created, changed, deleted, epoch_began,
        step_down, log_replaced, lapsed (a grant that ended).
    subject: what it is about (`key:<uid>`, `budget:<id>`, …). actor: who did it (`key:<uid>`, `admin`, `owner`, …).
    source: the log and sequence it was read from. details: plain values, never prompt text or secrets.
    """

    at: Micros
    action: str
    subject: str
    actor: str
    source: str
    source_seq: int
    org: Uid = ""
    details: dict[str, str | int | bool] = {}


class AuditPage(Message, frozen=True, kw_only=True):
    """Entries in order. prev: SHA-256 of the previous page's bytes, 32 zero bytes on the first.

    read: how far each source log is covered, by stream name; the chain is its own record of progress.
    digest: SHA-256 of this page's bytes with this field empty, so that the last page is checked without a next one.
    """

    chain_id: str
    seq: int
    prev: bytes
    at: Micros
    read: dict[str, Position]
    entries: tuple[AuditEntry, ...]
    digest: bytes = b""
