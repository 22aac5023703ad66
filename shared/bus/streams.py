"""Make the streams and buckets: idempotent, run before services start (by `sluicegate up`, or a job in a cluster)."""

import json
from typing import Any

import nats.js.errors
from nats.js.api import DiscardPolicy, KeyValueConfig, RetentionPolicy, StorageType, StreamConfig
from ulid import ULID

from shared.bus.connection import Bus
from shared.contracts.streams import BUCKETS, DEDUPLICATION_SECONDS, STREAMS


async def provision(bus: Bus, replicas: int | None = None) -> None:
    """Create what is missing; leave what is there, but for its number of copies where that is asked for.

    replicas: of all streams and buckets. None: one of what is made now, and as many as there are of the others.
    A stream's `log_id` is given once, at its making.
    """
    js = bus.client.jetstream(timeout=10)
    for stream, subject in STREAMS.items():
        try:
            await js.stream_info(bus.names.stream(stream))
        except nats.js.errors.NotFoundError:
            await js.add_stream(_config(bus, stream, subject, replicas or 1))
    for bucket in BUCKETS:
        name = bus.names.stream(bucket)
        try:
            await js.key_value(name)
        except nats.js.errors.BucketNotFoundError:
            made = KeyValueConfig(bucket=name, history=1, replicas=replicas or 1, storage=StorageType.FILE)
            await js.create_key_value(made)
    for stream in _all(bus):
        if replicas:
            await _copy(bus, stream, replicas)


async def _copy(bus: Bus, stream: str, replicas: int) -> None:
    """As many copies as that, which the broker makes or drops while the stream is in use.

    The configuration goes back as it came, not through the library's: an operator's limits and what a newer broker knows stay.
    """
    config = (await _ask(bus, f"$JS.API.STREAM.INFO.{stream}"))["config"]
    if config["num_replicas"] != replicas:
        await _ask(bus, f"$JS.API.STREAM.UPDATE.{stream}", config | {"num_replicas": replicas})


async def _ask(bus: Bus, subject: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    answer = await bus.client.request(subject, json.dumps(body).encode() if body else b"", timeout=10)
    found: dict[str, Any] = json.loads(answer.data)
    if "error" in found:
        raise nats.js.errors.APIError.from_error(found["error"])
    return found


def _all(bus: Bus) -> list[str]:
    """A bucket is a stream of another name."""
    return [*map(bus.names.stream, STREAMS), *(f"KV_{bus.names.stream(bucket)}" for bucket in BUCKETS)]


async def missing(bus: Bus) -> list[str]:
    """Streams and buckets that nobody has made yet."""
    js = bus.client.jetstream(timeout=10)
    found = []
    for stream in _all(bus):
        try:
            await js.stream_info(stream)
        except nats.js.errors.NotFoundError:
            found.append(stream)
    return found


def _config(bus: Bus, stream: str, subject: str, replicas: int) -> StreamConfig:
    return StreamConfig(
        name=bus.names.stream(stream),
        subjects=[bus.names.subject(subject)],
        retention=RetentionPolicy.LIMITS,
        discard=DiscardPolicy.NEW,
        storage=StorageType.FILE,
        num_replicas=replicas,
        duplicate_window=DEDUPLICATION_SECONDS,
        allow_direct=True,
        metadata={"log_id": str(ULID())},
    )
