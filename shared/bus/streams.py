"""Make the streams and buckets: idempotent, run before services start (by `sluicegate up`, or a job in a cluster)."""

import nats.js.errors
from nats.js.api import DiscardPolicy, KeyValueConfig, RetentionPolicy, StorageType, StreamConfig
from ulid import ULID

from shared.bus.connection import Bus
from shared.contracts.streams import BUCKETS, DEDUPLICATION_SECONDS, STREAMS


async def provision(bus: Bus, replicas: int = 1) -> None:
    """Create what is missing; leave what is there. A stream's `log_id` is given once, at its making."""
    js = bus.client.jetstream(timeout=10)
    for stream, subject in STREAMS.items():
        try:
            await js.stream_info(bus.names.stream(stream))
        except nats.js.errors.NotFoundError:
            await js.add_stream(_config(bus, stream, subject, replicas))
    for bucket in BUCKETS:
        try:
            await js.key_value(bus.names.stream(bucket))
        except nats.js.errors.BucketNotFoundError:
            await js.create_key_value(
                KeyValueConfig(bucket=bus.names.stream(bucket), history=1, replicas=replicas, storage=StorageType.FILE)
            )


async def missing(bus: Bus) -> list[str]:
    """Streams and buckets that nobody has made yet."""
    js = bus.client.jetstream(timeout=10)
    found = []
    for stream in (*map(bus.names.stream, STREAMS), *(f"KV_{bus.names.stream(bucket)}" for bucket in BUCKETS)):
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
