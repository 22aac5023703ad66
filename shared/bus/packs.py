"""Questions that are asked in one turn of the loop on one subject travel as one message, and so do their answers.

A message costs the broker and both clients far more than what is in it; under load it carries a dozen questions.
A question alone waits for nothing: what is asked in a turn leaves at its end.

On the wire: a question is a list of payloads, an answer a list of (place in that list, payload). What is published
without a reply subject is no question, and travels as it is.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec
import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from shared.bus.arrivals import subscribe_now
from shared.bus.replies import unanswerable
from shared.errors import Unavailable

log = structlog.get_logger()

Handler = Callable[[bytes], Awaitable[bytes | None]]
Answer = asyncio.Future[bytes | None]
"""None: nobody listens, or nobody answered in time."""

MOST_BYTES = 256 * 1024  # a message may have 1 MiB, and answers can be larger than their questions
MOST_QUESTIONS = 128

question_of: Callable[[list[bytes]], bytes] = msgspec.msgpack.Encoder().encode
questions_in = msgspec.msgpack.Decoder(list[bytes]).decode
answer_of: Callable[[list[tuple[int, bytes]]], bytes] = msgspec.msgpack.Encoder().encode
answers_in = msgspec.msgpack.Decoder(list[tuple[int, bytes]]).decode


class _Pack(msgspec.Struct):
    """Questions that travel together. waiting: how many of them still are."""

    token: str
    subject: str
    payloads: list[bytes] = []
    answers: list[Answer] = []
    size: int = 0
    waiting: int = 0

    def takes(self, data: bytes) -> bool:
        return self.size + len(data) <= MOST_BYTES and len(self.payloads) < MOST_QUESTIONS


class Asking:
    """The side that asks."""

    def __init__(self, client: Client) -> None:
        self._client, self._loop = client, asyncio.get_running_loop()
        self._prefix = ""
        self._asked = 0
        self._waiting: dict[str, _Pack] = {}
        self._filling: dict[str, _Pack] = {}  # by subject; what this turn of the loop asks
        self._sending: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Once, when the connection stands; the client subscribes anew after each reconnection."""
        self._prefix = f"{self._client.new_inbox()}."
        await subscribe_now(self._client, f"{self._prefix}*", self._arrived)

    async def ask(self, subject: str, data: bytes, timeout: float) -> bytes:
        """subject: with the prefix. Raises Unavailable(subject) where nobody listens, and on silence."""
        loop = self._loop
        answer: Answer = loop.create_future()
        pack = self._pack(subject, data, answer)
        timer = loop.call_later(timeout, _settle, answer, None)
        try:
            found = await answer
        finally:
            timer.cancel()
            pack.waiting -= 1
            if not pack.waiting:
                self._waiting.pop(pack.token, None)
        if found is None:
            raise Unavailable(subject)
        return found

    def _pack(self, subject: str, data: bytes, answer: Answer) -> _Pack:
        pack = self._filling.get(subject)
        if pack is None or not pack.takes(data):
            self._asked += 1
            pack = _Pack(str(self._asked), subject)
            self._waiting[pack.token] = self._filling[subject] = pack
            sending = self._loop.create_task(self._send(pack))
            self._sending.add(sending)
            sending.add_done_callback(self._sending.discard)
        pack.payloads.append(data)
        pack.answers.append(answer)
        pack.size += len(data)
        pack.waiting += 1
        return pack

    async def _send(self, pack: _Pack) -> None:
        """Begins to run once all that is ready in this turn has asked."""
        if self._filling.get(pack.subject) is pack:
            del self._filling[pack.subject]
        try:
            await self._client.publish(pack.subject, question_of(pack.payloads), self._prefix + pack.token)
        except (nats.errors.Error, OSError):
            _nobody(pack)

    def _arrived(self, msg: Msg) -> None:
        """An answer that nobody waits for any more is dropped."""
        pack = self._waiting.get(msg.subject[len(self._prefix) :])
        if pack is None:
            return
        if unanswerable(msg):
            _nobody(pack)
            return
        try:
            for at, data in answers_in(msg.data):
                _settle(pack.answers[at], data)
        except (msgspec.DecodeError, IndexError):
            log.warning("bus.answer_not_understood", subject=pack.subject)


def _nobody(pack: _Pack) -> None:
    for answer in pack.answers:
        _settle(answer, None)


def _settle(answer: Answer, data: bytes | None) -> None:
    if not answer.done():  # the one who asked may just have been cancelled
        answer.set_result(data)


class Answering:
    """The side that answers: each question of a message by itself, as soon as its handler has done with it."""

    def __init__(self, client: Client) -> None:
        self._client, self._loop = client, asyncio.get_running_loop()
        self._running: set[asyncio.Future[bytes | None]] = set()
        self._ready: dict[str, list[tuple[int, bytes]]] = {}  # by the subject to answer on
        self._sending: set[asyncio.Task[None]] = set()

    async def subscribe(self, subject: str, handler: Handler, queue: str = "") -> None:
        """See Bus.subscribe."""

        def on_message(msg: Msg) -> None:
            if not msg.reply:
                self._handle(handler, msg, 0, msg.data)
                return
            try:
                questions = questions_in(msg.data)
            except msgspec.DecodeError:
                log.warning("bus.question_not_understood", subject=msg.subject)
                return
            for at, data in enumerate(questions):
                self._handle(handler, msg, at, data)

        await subscribe_now(self._client, subject, on_message, queue)

    def _handle(self, handler: Handler, msg: Msg, at: int, data: bytes) -> None:
        try:
            answering = handler(data)
        except Exception:  # as in _answered
            log.exception("bus.handler_failed", subject=msg.subject)
            return
        if not isinstance(answering, asyncio.Future):
            answering = asyncio.ensure_future(answering)
            self._running.add(answering)
        answering.add_done_callback(partial(self._answered, msg, at))

    def _answered(self, msg: Msg, at: int, done: "asyncio.Future[bytes | None]") -> None:
        """The bus loop is one of the two places where every failure is told apart."""
        self._running.discard(done)
        if done.cancelled():
            return
        error = done.exception()
        if isinstance(error, Unavailable):
            log.warning("bus.handler_unavailable", subject=msg.subject, neighbour=error.neighbour)
        elif error:
            log.error("bus.handler_failed", subject=msg.subject, exc_info=error)
        elif (reply := done.result()) is not None and msg.reply:
            self._reply(msg.reply, at, reply)

    def _reply(self, inbox: str, at: int, reply: bytes) -> None:
        if not self._ready:  # one task sends all that are answered in this turn of the loop
            sending = self._loop.create_task(self._send())
            self._sending.add(sending)
            sending.add_done_callback(self._sending.discard)
        self._ready.setdefault(inbox, []).append((at, reply))

    async def _send(self) -> None:
        ready, self._ready = self._ready, {}
        for inbox, answers in ready.items():
            for message in _messages(answers):
                try:
                    await self._client.publish(inbox, message)
                except (nats.errors.Error, OSError):
                    log.warning("bus.reply_lost", inbox=inbox)


def _messages(answers: list[tuple[int, bytes]]) -> list[bytes]:
    """As few as their sizes allow."""
    groups, size = [list[tuple[int, bytes]]()], 0
    for at, data in answers:
        if size + len(data) > MOST_BYTES and groups[-1]:
            groups.append([])
            size = 0
        groups[-1].append((at, data))
        size += len(data)
    return [answer_of(group) for group in groups]
