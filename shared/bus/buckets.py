"""Read all of a bucket: who is registered, what was decided."""

import asyncio

import nats.errors
import nats.js.errors
from nats.js import JetStreamContext
from nats.js.kv import KeyValue

from shared.contracts.streams import Names
from shared.errors import Unavailable

READ_TOGETHER = 64


async def values(js: JetStreamContext, names: Names, bucket: str) -> dict[str, bytes]:
    """See Bus.values.

    The stream is asked which subjects it has. nats-py's own `keys()` leaves a consumer behind for five minutes each
    time, and takes "nothing is pending" for the end when the broker says so before the first value has arrived.
    """
    name = names.stream(bucket)
    prefix = f"$KV.{name}."
    try:
        info = await js.stream_info(f"KV_{name}", subjects_filter=f"{prefix}>")
        keys = [subject.removeprefix(prefix) for subject in info.state.subjects or ()]
        found, read = await js.key_value(name), dict[str, bytes]()
        for start in range(0, len(keys), READ_TOGETHER):
            some = keys[start : start + READ_TOGETHER]
            read.update(zip(some, await asyncio.gather(*(_value(found, key) for key in some)), strict=True))
    except (nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError) as error:
        raise Unavailable("bus") from error
    return {key: value for key, value in read.items() if value}


async def _value(bucket: KeyValue, key: str) -> bytes:
    """Empty when the key has been deleted: the broker keeps a mark in its place."""
    try:
        return (await bucket.get(key)).value or b""
    except nats.js.errors.KeyNotFoundError:
        return b""
