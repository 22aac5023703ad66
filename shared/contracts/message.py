"""The frame of every bus message: a msgpack array, its version first.

Fields are only ever appended, with defaults; receivers read longer arrays and refuse an unknown major version.

Messages of one kind and subject may be stored as one, a bundle: `[0, [message, ...]]`. A message costs the broker, its disk and
every reader far more than what is in it. Where a log may hold bundles its contract says so; a position in it is that of
the whole bundle, so who keeps one counts a bundle as read when all of it is.
"""

from collections.abc import Sequence
from typing import Annotated, Generic, TypeVar

import msgspec

NanoUSD = Annotated[int, msgspec.Meta(description="signed, 10^-9 US dollars")]
PicoUSD = Annotated[int, msgspec.Meta(description="signed, 10^-12 US dollars")]
Micros = Annotated[int, msgspec.Meta(description="microseconds since 1970-01-01T00:00:00Z; 0: did not happen")]
Uid = Annotated[str, msgspec.Meta(description="ULID, immutable, never reused; empty: does not apply")]

VERSION = 1


class Part(msgspec.Struct, array_like=True, frozen=True, kw_only=True, gc=False):
    """A piece of a message; grows by appending, like the message itself.

    gc: neither it nor a message can be part of a cycle, and the garbage collector would walk over every one that is kept.
    """


class Message(msgspec.Struct, array_like=True, frozen=True, kw_only=True, gc=False):
    """What is published; `v` is the major version."""

    v: int = VERSION


class UnknownVersion(ValueError):
    """Written by a newer major version: refused, never guessed at."""


M = TypeVar("M", bound=Message)
_encoder = msgspec.msgpack.Encoder()
_frame = msgspec.msgpack.Decoder(Message)
_bundle = msgspec.msgpack.Decoder(tuple[int, list[bytes]])
_BUNDLED = b"\x92\x00"  # how a bundle begins, and no message does


def encode(message: Message) -> bytes:
    """The bytes that go on the bus."""
    return _encoder.encode(message)


def bundle(messages: Sequence[bytes]) -> bytes:
    """Encoded messages as one; one alone stays as it is."""
    return messages[0] if len(messages) == 1 else _encoder.encode((0, messages))


def unbundled(data: bytes) -> list[bytes]:
    """The messages in what a log holds, in their order. Raises msgspec.DecodeError."""
    return _bundle.decode(data)[1] if data.startswith(_BUNDLED) else [data]


class Decoder(Generic[M]):
    """Reads one kind of message; made once, at module level."""

    def __init__(self, kind: type[M]) -> None:
        self._decoder = msgspec.msgpack.Decoder(kind)

    def decode(self, data: bytes) -> M:
        """Raises UnknownVersion, or msgspec.DecodeError when the bytes are not this message."""
        try:
            message = self._decoder.decode(data)
        except UnicodeDecodeError as error:
            raise msgspec.DecodeError(str(error)) from None
        except msgspec.ValidationError:
            if (version := _frame.decode(data).v) != VERSION:
                raise UnknownVersion(f"message version {version}, this release reads {VERSION}") from None
            raise
        if message.v != VERSION:
            raise UnknownVersion(f"message version {message.v}, this release reads {VERSION}")
        return message

    def decode_all(self, data: bytes) -> list[M]:
        """Of a bundle or a single message; raises what `decode` does."""
        return [self.decode(each) for each in unbundled(data)]
