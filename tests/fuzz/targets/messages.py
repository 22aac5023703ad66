"""What comes over the bus, or is read back from disk: hostile bytes are a clean error, the others stay what they are."""

import inspect
import zlib

import msgspec

from services.edge.core import journal
from shared.contracts import audit, budget, config, edge, leases, ledger, pricing
from shared.contracts.message import Decoder, Message, UnknownVersion, encode

MODULES = (audit, budget, config, edge, ledger, leases, pricing, journal)
DECODERS: dict[bytes, Decoder[Message]] = {
    name.encode(): Decoder(kind)
    for module in MODULES
    for name, kind in inspect.getmembers(module, inspect.isclass)
    if issubclass(kind, Message) and kind is not Message
}


def check(data: bytes) -> None:
    """data: the name of a message on a line of its own, then its bytes."""
    name, _, message = data.partition(b"\n")
    decoder = DECODERS.get(name) or list(DECODERS.values())[zlib.crc32(name) % len(DECODERS)]
    try:
        read = decoder.decode(message)
    except (msgspec.DecodeError, UnknownVersion) as error:
        str(error)
        return
    again = encode(read)
    assert encode(decoder.decode(again)) == again
