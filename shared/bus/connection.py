"""A connection that never gives up, and the verbs the services use on it."""

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
import nats
import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.kv import KeyValue

from shared.bus.follow import Arrivals, Stored, follow
from shared.contracts.streams import Names, Position
from shared.errors import Overtaken, Unavailable

log = structlog.get_logger()

Handler = Callable[[bytes], Awaitable[bytes | None]]

WRONG_LAST_SEQUENCE = 10071  # JetStream's err_code; a full stream, a missing one have others


class BusSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """prefix: before every subject, stream and bucket. monitor_url: the broker's, "" leaves its sync mode unchecked."""

    url: str = "nats://127.0.0.1:4222"
    prefix: str = ""
    user: str = ""
    password: str = ""
    monitor_url: str = ""
    connect_timeout_seconds: float = 5.0
    request_timeout_seconds: float = 2.0


class Bus:
    """Verbs on the broker. Every failure of the broker is Unavailable("bus"); Overtaken where a sequence was expected."""

    def __init__(self, client: Client, settings: BusSettings) -> None:
        self.client = client
        self.settings = settings
        self.names = Names(settings.prefix)
        self._js: JetStreamContext = client.jetstream(timeout=settings.request_timeout_seconds)
        self._followers: set[Arrivals] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def connected(self) -> bool:
        return self.client.is_connected

    async def publish(self, subject: str, data: bytes) -> None:
        """At most once, unacknowledged: for what may be lost."""
        try:
            await self.client.publish(self.names.subject(subject), data)
        except (nats.errors.Error, OSError) as error:
            raise Unavailable("bus") from error

    async def request(self, subject: str, data: bytes, timeout: float | None = None) -> bytes:
        """Ask and wait for one answer. No responder answers at once as Unavailable, a slow one after the timeout."""
        try:
            answer = await self.client.request(
                self.names.subject(subject), data, timeout=timeout or self.settings.request_timeout_seconds
            )
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise Unavailable(subject) from error
        return answer.data

    async def append(
        self,
        subject: str,
        data: bytes,
        *,
        msg_id: str = "",
        expected_last_seq: int | None = None,
        timeout: float | None = None,
    ) -> int:
        """Store durably; returns the stream sequence (of the first copy, where the broker knew msg_id already).

        expected_last_seq: sequence of the last message on this very subject, else Overtaken and nothing is stored.
        Unavailable leaves open whether it was stored: ask again with the same msg_id, or read the last message.
        """
        headers = {"Nats-Msg-Id": msg_id} if msg_id else {}
        if expected_last_seq is not None:
            headers["Nats-Expected-Last-Subject-Sequence"] = str(expected_last_seq)
        try:
            ack = await self._js.publish(self.names.subject(subject), data, headers=headers or None, timeout=timeout)
        except nats.js.errors.APIError as error:
            if error.err_code == WRONG_LAST_SEQUENCE:
                raise Overtaken(subject) from error
            raise Unavailable("bus") from error
        except (nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError) as error:
            raise Unavailable("bus") from error
        return ack.seq

    async def subscribe(self, subject: str, handler: Handler, queue: str = "") -> None:
        """Call handler for each message, concurrently; what it returns is the reply.

        The client runs callbacks one at a time, so the callback only starts a task.
        """

        async def on_message(msg: Msg) -> None:
            task = asyncio.create_task(self._answer(msg, handler))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        await self.client.subscribe(self.names.subject(subject), queue=queue, cb=on_message)
        try:
            await self.client.flush()  # heard from here on, not from some moment later
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise Unavailable("bus") from error

    async def _answer(self, msg: Msg, handler: Handler) -> None:
        try:
            reply = await handler(msg.data)
        except Unavailable as error:
            log.warning("bus.handler_unavailable", subject=msg.subject, neighbour=error.neighbour)
            return
        except Exception:  # the bus loop is one of the two places where every failure is told apart
            log.exception("bus.handler_failed", subject=msg.subject)
            return
        if reply is not None and msg.reply:
            try:
                await self.client.publish(msg.reply, reply)
            except (nats.errors.Error, OSError):
                log.warning("bus.reply_lost", subject=msg.subject)

    async def last(self, stream: str, subject: str) -> Stored | None:
        """The last stored message on a subject, None when there is none."""
        try:
            found = await self._js.get_last_msg(self.names.stream(stream), self.names.subject(subject))
        except nats.js.errors.NotFoundError:
            return None
        except (nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError) as error:
            raise Unavailable("bus") from error
        return Stored(seq=found.seq or 0, subject=found.subject or "", data=found.data or b"")

    async def end(self, stream: str) -> Position:
        """Where the log stands now: its incarnation and last sequence."""
        try:
            info = await self._js.stream_info(self.names.stream(stream))
        except (nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError) as error:
            raise Unavailable("bus") from error
        return Position(log_id=(info.config.metadata or {}).get("log_id", ""), seq=info.state.last_seq)

    def follow(self, stream: str, subject: str = "", after: int = 0, batch: int = 500) -> AsyncIterator[list[Stored]]:
        """Every stored message after a sequence, in order, without gaps or repeats, for ever; in lists as they come.

        Survives broker restarts. Progress is the reader's own: nothing is acknowledged.
        """
        return follow(self.client, self._js, self.names, self._followers, stream, subject, after, batch)

    def reconnected(self) -> None:
        """The connection was made anew: followers look for their consumers at once instead of waiting for silence."""
        for arrivals in self._followers:
            arrivals.put_nowait(None)

    async def bucket(self, bucket: str) -> KeyValue:
        """A key-value bucket made by `provision`."""
        try:
            return await self._js.key_value(self.names.stream(bucket))
        except (nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError) as error:
            raise Unavailable("bus") from error

    async def sync_always(self) -> bool | None:
        """Whether the broker writes to disk before it acknowledges; None when its monitor is not configured."""
        if not self.settings.monitor_url:
            return None
        return await asyncio.to_thread(_sync_always, self.settings.monitor_url)


def _sync_always(monitor_url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{monitor_url}/varz", timeout=3) as answer:  # noqa: S310  # from settings, not a user
            varz = json.load(answer)
    except OSError as error:
        raise Unavailable("bus monitor") from error
    return bool(varz.get("jetstream", {}).get("config", {}).get("sync_always", False))


@asynccontextmanager
async def open_bus(settings: BusSettings, name: str) -> AsyncIterator[Bus]:
    """Connect within connect_timeout_seconds or raise Unavailable("bus"); afterwards reconnect for ever."""

    async def on_error(error: Exception) -> None:
        log.info("bus.error", error=repr(error))

    async def on_disconnect() -> None:
        log.warning("bus.disconnected")

    client = Client()
    bus = Bus(client, settings)

    async def on_reconnect() -> None:
        log.info("bus.reconnected")
        bus.reconnected()

    try:
        async with asyncio.timeout(settings.connect_timeout_seconds):
            await _connect(client, settings, name, on_error, on_disconnect, on_reconnect)
    except (TimeoutError, nats.errors.Error, OSError) as error:
        await client.close()
        raise Unavailable("bus") from error
    try:
        yield bus
    finally:
        await _close(client)


async def _connect(
    client: Client,
    settings: BusSettings,
    name: str,
    on_error: Callable[[Exception], Awaitable[None]],
    on_disconnect: Callable[[], Awaitable[None]],
    on_reconnect: Callable[[], Awaitable[None]],
) -> None:
    await client.connect(
        settings.url,
        name=name,
        user=settings.user or None,
        password=settings.password or None,
        error_cb=on_error,
        disconnected_cb=on_disconnect,
        reconnected_cb=on_reconnect,
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.1,  # type: ignore[arg-type]  # annotated as int, slept as a float
        connect_timeout=2,
        ping_interval=3,  # a frozen broker still looks connected; two lost pings end that
        max_outstanding_pings=2,
        pending_size=64 * 1024 * 1024,
    )


async def _close(client: Client) -> None:
    try:
        async with asyncio.timeout(3):
            await client.drain() if client.is_connected else await client.close()
    except (TimeoutError, nats.errors.Error, OSError):
        await client.close()
