"""What a spool's folder holds besides its records, and what the last process left in it."""

import fcntl
import os
from pathlib import Path

import msgspec
import structlog
from ulid import ULID

from services.edge.core.journal import KINDS, Departed, Dropped, Opened, Progressed, Sent, Started, Unfinished
from services.edge.stores import segment
from services.edge.stores.outbox import Pending
from services.edge.stores.segment import Place, SpoolFailed
from shared.contracts.edge import RequestCompleted, UsageRecorded
from shared.contracts.message import Decoder, Message

log = structlog.get_logger()

EDGE_ID = "edge-id"
EPOCH = "epoch"
ACKED = "acked"
LOCK = "lock"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_decoders = {mark: Decoder(kind) for mark, kind in KINDS.items()}
_place = msgspec.json.Decoder(Place)


class Left(msgspec.Struct):
    """segments: numbers, oldest first. pending: not known to be acknowledged. unfinished: started and not ended.

    unreported: usage records of client requests whose own record is missing, by request_id.
    """

    segments: list[int]
    pending: list[Pending]
    unfinished: list[Unfinished]
    unreported: dict[str, list[UsageRecorded]]


def lock(folder: Path) -> int:
    """Take the folder for this process; returns the descriptor to keep. Raises SpoolFailed when another one has it."""
    folder.mkdir(parents=True, exist_ok=True)
    fd = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise SpoolFailed(f"another edge worker uses {folder}") from None
    return fd


def identity(folder: Path) -> tuple[str, int]:
    """The worker's lasting id and the number of this start. Durable on return."""
    file = folder / EDGE_ID
    edge = file.read_text().strip() if file.exists() else ""
    if not edge:
        edge = str(ULID())
        write(file, edge)
    epoch_file = folder / EPOCH
    epoch = 1 + (int(epoch_file.read_text()) if epoch_file.exists() else 0)
    write(epoch_file, str(epoch))
    return edge, epoch


def write(file: Path, text: str, *, durable: bool = True) -> None:
    """Replace a small file as a whole."""
    part = file.with_suffix(".part")
    with part.open("w") as out:
        out.write(text)
        out.flush()
        if durable:
            os.fsync(out.fileno())
    part.replace(file)
    if durable:
        segment.sync_folder(file.parent)


def boot_id() -> str:
    """Of this run of the machine; empty where the system tells none, which counts as the same run."""
    return BOOT_ID.read_text().strip() if BOOT_ID.exists() else ""


def save_acked(folder: Path, place: Place) -> None:
    """A hint: losing it means publishing again, in the same company, what the broker drops as known."""
    write(folder / ACKED, msgspec.json.encode(place).decode(), durable=False)


def _acked(folder: Path) -> Place:
    try:
        return _place.decode((folder / ACKED).read_bytes())
    except (OSError, msgspec.DecodeError):
        return Place(0, 0, 0)


def read(folder: Path, boot: str) -> Left:
    """Everything the last processes left. Cuts torn ends."""
    reader = _Reader(_acked(folder), boot)
    found = segment.numbers(folder)
    for number in found:
        records, torn = segment.scan(folder, number)
        if torn:
            log.warning("edge.spool_torn", segment=number, bytes=torn)
            path = segment.path_of(folder, number)
            os.truncate(path, path.stat().st_size - torn)
        for place, payload in records:
            reader.take(place, payload)
    return reader.left(found)


class _Reader:
    """Folds records in order."""

    def __init__(self, acked: Place, boot: str) -> None:
        self._acked, self._boot = (acked.segment, acked.offset), boot
        self._rebooted = False
        self._started: dict[str, Unfinished] = {}
        self._unreported: dict[str, list[UsageRecorded]] = {}
        self._pending: list[Pending] = []
        self._departed: dict[str, tuple[str, ...]] = {}  # by the first of them

    def take(self, place: Place, payload: bytes) -> None:
        record = _decoders[payload[:1]].decode(payload[1:])
        self._publishable(place, payload, record)
        match record:
            case Opened(boot_id=boot_id):
                self._rebooted = boot_id != self._boot
            case Started(usage=usage):
                # A record that was carried on to a newer segment says nothing new; what followed the first still counts.
                self._started.setdefault(usage.rid, Unfinished(started=record, rebooted=self._rebooted))
            case Sent(usage=usage):
                self._update(usage.rid, sent=record)
            case Progressed(rid=rid):
                self._update(rid, progressed=record)
            case Dropped(rid=rid):
                self._started.pop(rid, None)
            case Departed(ids=ids):
                self._departed[ids[0]] = ids
            case UsageRecorded(rid=rid, request_id=request_id):
                self._started.pop(rid, None)
                self._unreported.setdefault(request_id, []).append(record)
            case RequestCompleted(request_id=request_id):
                self._unreported.pop(request_id, None)

    def _update(self, rid: str, **known: Sent | Progressed) -> None:
        if rid in self._started:
            self._started[rid] = msgspec.structs.replace(self._started[rid], **known)

    def _publishable(self, place: Place, payload: bytes, record: Message) -> None:
        if (place.segment, place.offset) <= self._acked:
            return
        if isinstance(record, UsageRecorded):
            pending = Pending(
                kind="usage", message_id=usage_id(record), place=place, data=payload[1:], shard=record.shard
            )
        elif isinstance(record, RequestCompleted):
            pending = Pending(kind="request", message_id=record.request_id, place=place, data=payload[1:])
        else:
            return
        self._pending.append(pending)

    def left(self, segments: list[int]) -> Left:
        self._tell_company()
        return Left(segments, self._pending, list(self._started.values()), self._unreported)

    def _tell_company(self) -> None:
        at = 0
        while at < len(self._pending):
            ids = self._departed.get(self._pending[at].message_id, ())
            company = self._pending[at : at + max(1, len(ids))]
            if tuple(each.message_id for each in company) != ids:
                company = company[:1]
            for pending in company:
                pending.company = len(company)
            at += len(company)


def usage_id(usage: UsageRecorded) -> str:
    """By which the broker knows a record it already has."""
    return f"{usage.rid}:{usage.kind}"
