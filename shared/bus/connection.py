"""A connection that never gives up, and the verbs the services use on it."""

import asyncio
import json
import ssl
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import msgspec
import nats
import nats.errors
import nats.js.errors
import structlog
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.kv import KeyValue

from shared.bus.access import Access
from shared.bus.buckets import values
from shared.bus.client import Client
from shared.bus.follow import GATHER_SECONDS, Arrivals, Stored, follow
from shared.bus.packs import Answering, Asking, Handler
from shared.bus.replies import Question, Replies
from shared.bus.settings import BusSettings
from shared.contracts.streams import Names, Position
from shared.errors import Overtaken, Unavailable
from shared.trust import verifying

log = structlog.get_logger()

WRONG_LAST_SEQUENCE = 10071  # JetStream's err_code; a full stream, a missing one have others


class Record(msgspec.Struct, frozen=True):
    """One of many to store. msg_id: the broker knows a second copy by it."""

    subject: str
    data: bytes
    msg_id: str


class _Refused(msgspec.Struct, frozen=True):
    err_code: int = 0


class _Ack(msgspec.Struct, frozen=True):
    """JetStream's answer to a message that a stream should store."""

    seq: int = 0
    error: _Refused | None = None


_ack = msgspec.json.Decoder(_Ack)


class Bus:
    """Verbs on the broker. Every failure of the broker is Unavailable("bus"); Overtaken where a sequence was expected."""

    def __init__(self, client: Client, settings: BusSettings) -> None:
        self.client = client
        self.settings = settings
        self.names = Names(settings.prefix)
        self._js: JetStreamContext = client.jetstream(timeout=settings.request_timeout_seconds)
        self._replies = Replies(client)
        self._followers: set[Arrivals] = set()
        self._asking, self._answering = Asking(client), Answering(client)

    async def open(self) -> None:
        """Once, when the client is connected."""
        await self._replies.open()
        await self._asking.open()

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
            return await self._asking.ask(
                self.names.subject(subject), data, timeout or self.settings.request_timeout_seconds
            )
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise Unavailable(subject) from error

    async def _ask(self, question: Question, timeout: float | None) -> Msg:
        return await self._replies.ask(question, timeout or self.settings.request_timeout_seconds)

    def _question(self, subject: str, data: bytes, headers: dict[str, str] | None = None) -> Question:
        return Question(self.names.subject(subject), data, headers)

    async def append(
        self,
        subject: str,
        data: bytes,
        *,
        msg_id: str = "",
        expected_last_seq: int | None = None,
        expected_end: int | None = None,
        timeout: float | None = None,
    ) -> int:
        """Store durably; returns the stream sequence (of the first copy, where the broker knew msg_id already).

        expected_last_seq: sequence of the last message on this very subject, else Overtaken and nothing is stored.
        expected_end: the same of the whole stream, for a log that has one writer over all its subjects.
        Unavailable leaves open whether it was stored: ask again with the same msg_id, or read the last message.
        """
        headers = {"Nats-Msg-Id": msg_id} if msg_id else {}
        if expected_last_seq is not None:
            headers["Nats-Expected-Last-Subject-Sequence"] = str(expected_last_seq)
        if expected_end is not None:
            headers["Nats-Expected-Last-Sequence"] = str(expected_end)
        try:
            ack = _read_ack(await self._ask(self._question(subject, data, headers or None), timeout))
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise Unavailable("bus") from error
        if ack.error and ack.error.err_code == WRONG_LAST_SEQUENCE:
            raise Overtaken(subject)
        if ack.error:
            raise Unavailable("bus")
        return ack.seq

    async def append_all(self, records: Sequence[Record], timeout: float | None = None) -> list[bool]:
        """Store many without waiting for one after the other; whether each is stored. False leaves that open."""
        questions = [self._question(each.subject, each.data, {"Nats-Msg-Id": each.msg_id}) for each in records]
        try:
            answers = await self._replies.ask_all(questions, timeout or self.settings.request_timeout_seconds)
        except (nats.errors.Error, OSError):
            return [False] * len(records)
        return [answer is not None and _read_ack(answer).error is None for answer in answers]

    async def subscribe(self, subject: str, handler: Handler, queue: str = "") -> None:
        """Call handler for each message, concurrently; what it returns is the reply.

        A handler that is no coroutine function and returns a future costs no task for each message; it must not block.
        """

        await self._answering.subscribe(self.names.subject(subject), handler, queue)
        try:
            await self.client.flush()  # heard from here on, not from some moment later
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise Unavailable("bus") from error

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

    def follow(
        self, stream: str, subject: str = "", after: int = 0, batch: int = 500, gather: float = GATHER_SECONDS
    ) -> AsyncIterator[list[Stored]]:
        """Every stored message after a sequence, in order, without gaps or repeats, for ever; in lists as they come.

        Survives broker restarts. Progress is the reader's own: nothing is acknowledged.
        gather: seconds; where less than a batch came, so long a pause lets more come. What comes after silence is not delayed.
        """
        return follow(self.client, self._js, self.names, self._followers, stream, subject, after, batch, gather)

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

    async def values(self, bucket: str) -> dict[str, bytes]:
        """All that a bucket holds now, by key. Unavailable when the broker cannot tell."""
        return await values(self._js, self.names, bucket)

    async def sync_always(self) -> bool | None:
        """Whether the broker writes to disk before it acknowledges; None when its monitor is not configured."""
        if not self.settings.monitor_url:
            return None
        return await asyncio.to_thread(_sync_always, self.settings)


def _read_ack(msg: Msg) -> _Ack:
    """What is no acknowledgement, as the broker's word that no stream takes the subject, reads as a refusal."""
    try:
        ack = _ack.decode(msg.data)
    except msgspec.DecodeError:
        return _Ack(error=_Refused())
    return ack if ack.seq or ack.error else _Ack(error=_Refused())


def _sync_always(settings: BusSettings) -> bool:
    url = settings.monitor_url
    try:
        files = (settings.tls_ca_file, settings.tls_cert_file, settings.tls_key_file)
        trust = verifying(*files) if url.startswith("https:") else None
        with urllib.request.urlopen(f"{url}/varz", timeout=3, context=trust) as answer:  # noqa: S310  # from settings, not a user
            varz = json.load(answer)
    except OSError as error:
        raise Unavailable("bus monitor") from error
    return bool(varz.get("jetstream", {}).get("config", {}).get("sync_always", False))


@asynccontextmanager
async def open_bus(settings: BusSettings, name: str) -> AsyncIterator[Bus]:
    """Connect within connect_timeout_seconds or raise Unavailable("bus") from the reason; afterwards reconnect for ever.

    SettingsError where a file that the settings name cannot be used.
    """
    reasons: list[Exception] = []

    async def on_error(error: Exception) -> None:
        if not reasons or _tells_why(error):
            reasons[:] = [error]
        log.info("bus.error", error=repr(error))

    async def on_disconnect() -> None:
        log.warning("bus.disconnected")

    client = Client(Access(settings))
    bus = Bus(client, settings)

    async def on_reconnect() -> None:
        log.info("bus.reconnected")
        bus.reconnected()

    try:
        async with asyncio.timeout(settings.connect_timeout_seconds):
            await _connect(client, name, on_error, on_disconnect, on_reconnect)
            await bus.open()
    except (TimeoutError, nats.errors.Error, OSError) as error:
        await client.close()
        raise Unavailable("bus") from (reasons or [error])[0]
    try:
        yield bus
    finally:
        await _close(client)


def _tells_why(error: Exception) -> bool:
    """The broker answered and something was wrong; that it did not answer tells less."""
    return isinstance(error, nats.errors.Error | ssl.SSLError)


async def _connect(
    client: Client,
    name: str,
    on_error: Callable[[Exception], Awaitable[None]],
    on_disconnect: Callable[[], Awaitable[None]],
    on_reconnect: Callable[[], Awaitable[None]],
) -> None:
    access = client.access
    who, credentials = access.settings.identity, access.credentials
    signer = credentials or access.nkey
    await client.connect(
        access.settings.servers,
        name=name,
        user=who.user or None,
        password=who.password or None,
        token=who.token or None,
        user_jwt_cb=credentials.jwt if credentials else None,
        signature_cb=signer.sign if signer else None,
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
    with suppress(RuntimeError):  # uvloop's word where the broker is gone and the client has something left to tell it
        try:
            async with asyncio.timeout(3):
                await client.drain() if client.is_connected else await client.close()
        except (TimeoutError, nats.errors.Error, OSError):
            await client.close()
