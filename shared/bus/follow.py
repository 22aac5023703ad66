"""Read a log from a position on, in order and without gaps, whatever the broker goes through.

An ephemeral pull consumer without acknowledgements is made at the sequence wanted, and made anew when the broker has
lost it or stays silent: the reader's own position is the only record of progress.
"""

import asyncio
import json
from collections.abc import AsyncIterator

import msgspec
import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from shared.bus.arrivals import subscribe_now
from shared.contracts.streams import STREAMS, Names

log = structlog.get_logger()

EXPIRES_SECONDS = 30.0
HEARTBEAT_SECONDS = 2.0
GATHER_SECONDS = 0.01
AT_LEISURE_SECONDS = 0.1
"""For who shows or stores what has been decided: nothing that is decided waits for it."""
ENDED = -1
"""Outstanding messages of a request that ended before it was full."""


class Stored(msgspec.Struct, frozen=True):
    """One message of a log."""

    seq: int
    subject: str
    data: bytes


Arrivals = asyncio.Queue[Msg | None]
"""What a follower reads from; None: the connection was made anew, so the broker may have lost the consumer."""


class _Lost(Exception):
    """The consumer is gone or silent; make another at the last position."""


async def follow(
    client: Client,
    js: JetStreamContext,
    names: Names,
    followers: set[Arrivals],
    stream: str,
    subject: str,
    after: int,
    batch: int,
    gather: float,
) -> AsyncIterator[list[Stored]]:
    """See Bus.follow. followers: told of reconnections by the Bus."""
    position = after
    arrivals: Arrivals = asyncio.Queue()
    followers.add(arrivals)
    try:
        async for messages in _for_ever(client, js, names, arrivals, stream, subject, position, batch, gather):
            yield messages
    finally:
        followers.discard(arrivals)


async def _for_ever(
    client: Client,
    js: JetStreamContext,
    names: Names,
    arrivals: Arrivals,
    stream: str,
    subject: str,
    after: int,
    batch: int,
    gather: float,
) -> AsyncIterator[list[Stored]]:
    position = after
    while True:
        try:
            while not arrivals.empty():
                arrivals.get_nowait()
            async for messages in _consume(client, js, names, arrivals, stream, subject, position, batch, gather):
                position = messages[-1].seq
                yield messages
        except (_Lost, nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError) as error:
            log.info("bus.follow_restarted", stream=stream, after=position, reason=repr(error))
            await asyncio.sleep(0.1)


async def _consume(
    client: Client,
    js: JetStreamContext,
    names: Names,
    arrivals: Arrivals,
    stream: str,
    subject: str,
    after: int,
    batch: int,
    gather: float,
) -> AsyncIterator[list[Stored]]:
    name = names.stream(stream)
    info = await js.add_consumer(
        name,
        ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=after + 1,
            ack_policy=AckPolicy.NONE,
            filter_subject=names.subject(subject or STREAMS[stream]),
            inactive_threshold=60.0,
            mem_storage=True,
            num_replicas=1,
        ),
    )
    inbox = client.new_inbox()
    subscription = await subscribe_now(client, inbox, arrivals.put_nowait)
    try:
        async for messages in _pull(
            client, f"$JS.API.CONSUMER.MSG.NEXT.{name}.{info.name}", inbox, arrivals, batch, gather
        ):
            yield messages
    finally:
        if client.is_connected and not client.is_draining:
            await subscription.unsubscribe()


async def _pull(
    client: Client, ask: str, inbox: str, arrivals: Arrivals, batch: int, gather: float
) -> AsyncIterator[list[Stored]]:
    """One request after the other for all there is: `no_wait` with `expires` waits for the first message, then brings
    what has come until then, and ends. Where there were fewer than wanted, a pause lets more gather: to be woken for each
    message costs the broker and every reader many times what is in it.
    """
    nanos = {"expires": int(EXPIRES_SECONDS * 1e9), "idle_heartbeat": int(HEARTBEAT_SECONDS * 1e9)}
    wanted = json.dumps({"batch": batch, "no_wait": True, **nanos}).encode()
    outstanding, came = 0, False
    while True:
        if outstanding <= 0:
            if came and outstanding == ENDED:
                await asyncio.sleep(gather)
            await client.publish(ask, wanted, inbox)
            outstanding, came = batch, False
        messages: list[Stored] = []
        arrived = [await _next(arrivals)]
        while not arrivals.empty():
            arrived.append(arrivals.get_nowait())
        for msg in arrived:
            if msg is None:
                break  # what came before it counts; the consumer is made anew
            status = (msg.headers or {}).get("Status") if msg.headers and not msg.data else None
            if status is None:
                messages.append(Stored(msg.metadata.sequence.stream, msg.subject, msg.data))
                outstanding -= 1
            elif status != "100":
                outstanding = _ended(status, outstanding)
        if messages:
            came = True
            yield messages
        if None in arrived:
            raise _Lost("reconnected")


def _ended(status: str, outstanding: int) -> int:
    """A pull request ended: 404 and 408 are its normal ends, anything else means the consumer is of no more use."""
    if status in ("404", "408"):
        return ENDED
    raise _Lost(f"status {status}, {outstanding} outstanding")


async def _next(arrivals: Arrivals) -> Msg | None:
    try:
        async with asyncio.timeout(3 * HEARTBEAT_SECONDS):
            return await arrivals.get()
    except TimeoutError:
        raise _Lost("silent") from None
