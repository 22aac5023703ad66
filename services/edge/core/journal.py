"""What the spool remembers of an attempt besides its end, so that the next process can close it."""

from typing import Literal

import msgspec

from shared.contracts.edge import Line, RequestCompleted, UsageRecorded
from shared.contracts.message import Message, Micros


class Opened(Message, frozen=True, kw_only=True):
    """A process began to write. boot_id: of the machine; another one means that unsynced records may be lost."""

    epoch: int
    boot_id: str
    at: Micros


class Started(Message, frozen=True, kw_only=True):
    """An attempt is about to be reserved. usage: what its end will say if nothing more happens: void, not sent.

    input_tokens, output_tokens: the most it may use, for want of a grant.
    """

    usage: UsageRecorded
    input_tokens: int = 0
    output_tokens: int = 0
    speed: str = "standard"
    geo: str = ""


class Sent(Message, frozen=True, kw_only=True):
    """It goes upstream now. usage: with the grant's charges and sent_at; tokens: as held."""

    usage: UsageRecorded
    input_tokens: int
    output_tokens: int
    speed: str = "standard"
    geo: str = ""


class Progressed(Message, frozen=True, kw_only=True):
    """What the answer has shown so far."""

    rid: str
    lines: tuple[Line, ...]
    response_model: str = ""
    provider_usage: bytes = b""


class Dropped(Message, frozen=True, kw_only=True):
    """The owner denied it: nothing was held and nothing sent, so there is nothing to close."""

    rid: str


class Departed(Message, frozen=True, kw_only=True):
    """Records that leave for the broker together; it knows them again only in the same company. ids: of their messages."""

    ids: tuple[str, ...]


Kind = Literal[b"O", b"S", b"U", b"P", b"D", b"T", b"E", b"R"]

KINDS: dict[bytes, type[Message]] = {
    b"O": Opened,
    b"S": Started,
    b"U": Sent,
    b"P": Progressed,
    b"D": Dropped,
    b"T": Departed,
    b"E": UsageRecorded,
    b"R": RequestCompleted,
}
"""First byte of a payload to what follows it. E and R are published as they stand."""
KIND_OF: dict[type[Message], bytes] = {kind: mark for mark, kind in KINDS.items()}


class Unfinished(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt whose end the last process did not write. sent: None where nothing shows that it was."""

    started: Started
    sent: Sent | None = None
    progressed: Progressed | None = None
    rebooted: bool = False
