"""Questions and their answers: one subscription for all answers of a connection, one timer for each wait."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg

from shared.bus.arrivals import subscribe_now

NO_RESPONDERS = "503"


class Question(msgspec.Struct, frozen=True):
    """subject: with the prefix."""

    subject: str
    data: bytes
    headers: dict[str, str] | None = None


class Replies:
    """`ask` and `ask_all` raise what the client raises; silence is a TimeoutError, or None among the answers."""

    def __init__(self, client: Client) -> None:
        self._client, self._loop = client, asyncio.get_running_loop()
        self._prefix = ""
        self._waiting: dict[str, Callable[[Msg], None]] = {}
        self._asked = 0

    async def open(self) -> None:
        """Once, when the connection stands; the client subscribes anew after each reconnection."""
        self._prefix = f"{self._client.new_inbox()}."
        await subscribe_now(self._client, f"{self._prefix}*", self._arrived)

    def _arrived(self, msg: Msg) -> None:
        """An answer that nobody waits for any more is dropped."""
        if waits := self._waiting.pop(msg.subject[len(self._prefix) :], None):
            waits(msg)

    def _expect(self, waits: Callable[[Msg], None]) -> str:
        self._asked += 1
        token = str(self._asked)
        self._waiting[token] = waits
        return token

    async def ask(self, question: Question, timeout: float) -> Msg:
        loop = self._loop
        answer: asyncio.Future[Msg | None] = loop.create_future()

        def settle(msg: Msg | None) -> None:
            if not answer.done():  # the one who asked may just have been cancelled
                answer.set_result(msg)

        token = self._expect(settle)
        timer = loop.call_later(timeout, settle, None)
        try:
            await self._send(question, token)
            msg = await answer
        finally:
            timer.cancel()
            self._waiting.pop(token, None)
        if msg is None:
            raise TimeoutError(question.subject)
        return msg

    async def ask_all(self, questions: Sequence[Question], timeout: float) -> list[Msg | None]:
        """All at once, then wait for all; None where no answer came in time. Costs one timer and one wait."""
        loop = self._loop
        done: asyncio.Future[None] = loop.create_future()
        answers: list[Msg | None] = [None] * len(questions)
        missing = len(questions)

        def settle(at: int, msg: Msg) -> None:
            nonlocal missing
            answers[at] = msg
            missing -= 1
            if not missing:
                end()

        def end() -> None:
            if not done.done():
                done.set_result(None)

        tokens = [self._expect(partial(settle, at)) for at in range(missing)]
        timer = loop.call_later(timeout, end)
        try:
            for question, token in zip(questions, tokens, strict=True):
                await self._send(question, token)
            if missing:
                await done
        finally:
            timer.cancel()
            for token in tokens:
                self._waiting.pop(token, None)
        return answers

    async def _send(self, question: Question, token: str) -> None:
        await self._client.publish(question.subject, question.data, self._prefix + token, question.headers)


def unanswerable(msg: Msg) -> bool:
    """The broker's own word that nobody listens on the subject, which comes at once."""
    return not msg.data and msg.headers is not None and msg.headers.get("Status") == NO_RESPONDERS
