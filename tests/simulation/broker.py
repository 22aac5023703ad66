"""A broker and a network that do everything they are allowed to: lose, repeat, delay, reorder, hang up.

What is stored stays stored (the broker syncs before it acknowledges); whether anybody hears of it is another matter.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import msgspec

from shared.contracts.streams import DEDUPLICATION_SECONDS
from shared.errors import Overtaken, Unavailable
from tests.simulation.clock import MICROS

if TYPE_CHECKING:
    from tests.simulation.world import Process, World

T = TypeVar("T")
Handler = Callable[[bytes], Awaitable[bytes | None]]


class Stored(msgspec.Struct, frozen=True):
    """A message of a log. at: when it was stored."""

    seq: int
    data: bytes
    msg_id: str
    at: int


class Stream:
    """One log with one subject: its sequence is the subject's."""

    def __init__(self) -> None:
        self.stored: list[Stored] = []
        self._known: dict[str, tuple[int, int]] = {}
        self._grown = asyncio.Event()

    def append(self, data: bytes, msg_id: str, expected: int | None, now: int) -> tuple[int, bool]:
        """The sequence, and whether it is new. A known id is answered before the fence is looked at, as nats-server does."""
        seq, at = self._known.get(msg_id, (0, 0))
        if msg_id and seq and now - at < DEDUPLICATION_SECONDS * MICROS:
            return seq, False
        if expected is not None and expected != len(self.stored):
            raise Overtaken
        seq = len(self.stored) + 1
        self.stored.append(Stored(seq, data, msg_id, now))
        self._known[msg_id] = (seq, now)
        self._grown.set()
        self._grown = asyncio.Event()
        return seq, True

    async def beyond(self, seq: int) -> None:
        """Return once there is more than this; a consumer is told, it need not ask."""
        while len(self.stored) <= seq:
            await self._grown.wait()


class Broker:
    def __init__(self, world: "World") -> None:
        self.world = world
        self.streams = {name: Stream() for name in ("USAGE", "PRICED", "LEDGER")}
        self.subscribers: dict[str, list[tuple[Port, Handler]]] = {}
        self.acked: dict[str, int] = {}  # what a consumer has acknowledged; only a mutant believes it
        self.down_until = 0

    def subscribed(self, subject: str) -> list[tuple["Port", Handler]]:
        found = [(port, handler) for port, handler in self.subscribers.get(subject, ()) if port.process.alive]
        self.subscribers[subject] = found
        return [(port, handler) for port, handler in found if port.connected]


class Port:
    """One process's connection. Every failure is Unavailable; whether the broker has acted is then unknown."""

    def __init__(self, process: "Process", broker: Broker) -> None:
        self.process = process
        self.broker = broker
        self.world = broker.world
        self.cut_until = 0

    @property
    def connected(self) -> bool:
        now = self.world.now()
        return now >= self.cut_until and now >= self.broker.down_until

    def _carry(self, deliver: Callable[[], None]) -> None:
        """One way over the network: not at all, once, or twice; soon or late."""
        rng, world = self.world.rng, self.world
        copies = 1
        if world.hostile:
            fate = rng.random()
            copies = 0 if fate < world.loss else 2 if fate < world.loss * 2 else 1
        for _ in range(copies):
            delay = rng.uniform(0.000_1, 0.002)
            if world.hostile and rng.random() < world.loss:
                delay = rng.choice((rng.uniform(0.01, 0.3), rng.uniform(0.5, 8)))
            world.loop.call_later(delay, deliver)

    async def _ask(self, do: Callable[[], T], timeout: float) -> T:
        """Let the broker do something and hear of it, or not."""
        heard: asyncio.Future[T | Overtaken | None] = self.world.loop.create_future()

        def settle(result: T | Overtaken | None) -> None:
            if not heard.done():
                heard.set_result(result)

        def arrive() -> None:
            if self.world.now() < self.broker.down_until:
                return
            try:
                result: T | Overtaken = do()
            except Overtaken as refusal:
                result = refusal
            self._carry(lambda: settle(result) if self.connected else None)

        if self.connected:
            self._carry(arrive)
        timer = self.world.loop.call_later(timeout, settle, None)
        result = await heard
        timer.cancel()
        await self.process.here("heard from the broker")
        if result is None:
            raise Unavailable("bus")
        if isinstance(result, Overtaken):
            raise result
        return result

    async def append(self, stream: str, data: bytes, msg_id: str, expected: int | None = None) -> int:
        """Returns the sequence. Raises Unavailable or Overtaken."""
        if self.world.mutant == "no_message_ids":
            msg_id = ""
        if self.world.mutant == "no_fence":
            expected = None

        def store() -> int:
            seq, new = self.broker.streams[stream].append(data, msg_id, expected, self.world.now())
            if new:
                self.world.stored(stream, self.broker.streams[stream].stored[seq - 1])
            return seq

        return await self._ask(store, 0.5)

    async def last(self, stream: str) -> tuple[Stored | None]:
        """In a tuple, so that an empty log is not taken for silence."""
        stored = self.broker.streams[stream].stored
        return await self._ask(lambda: (stored[-1] if stored else None,), 0.5)

    async def read(self, stream: str, after: int, most: int = 20) -> list[Stored]:
        """What stands after this sequence, in order; waits until there is something, for ever."""
        await self.broker.streams[stream].beyond(after)
        while True:
            try:
                return await self._ask(lambda: self.broker.streams[stream].stored[after : after + most], 0.5)
            except Unavailable:
                await asyncio.sleep(0.2)

    async def persist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask until the broker answers."""
        while True:
            try:
                return await ask()
            except Unavailable:
                await asyncio.sleep(0.2)

    def subscribe(self, subject: str, handler: Handler) -> None:
        self.broker.subscribers.setdefault(subject, []).append((self, handler))

    def publish(self, subject: str, data: bytes) -> None:
        """May be lost."""

        def arrive() -> None:
            for port, handler in self.broker.subscribed(subject):
                port.receive(handler, data, lambda _: None)

        if self.connected:
            self._carry(arrive)

    def receive(self, handler: Handler, data: bytes, reply: Callable[[bytes], None]) -> None:
        async def answer() -> None:
            answered = await handler(data)
            if answered is not None and self.connected:
                self._carry(lambda: reply(answered))

        def arrive() -> None:
            if self.process.alive and self.connected:
                self.process.spawn(answer())

        self._carry(arrive)

    async def request(self, subject: str, data: bytes, timeout: float) -> bytes:
        """The first answer of whoever listens; Unavailable after the timeout, at once when nobody does."""
        heard: asyncio.Future[bytes | None] = self.world.loop.create_future()

        def settle(answer: bytes | None) -> None:
            if not heard.done():
                heard.set_result(answer)

        def arrive() -> None:
            if self.world.now() < self.broker.down_until:
                return
            listening = self.broker.subscribed(subject)
            if not listening:
                self._carry(lambda: settle(None))
            for port, handler in listening:
                port.receive(handler, data, lambda answer: settle(answer) if self.connected else None)

        if self.connected:
            self._carry(arrive)
        timer = self.world.loop.call_later(timeout, settle, None)
        answer = await heard
        timer.cancel()
        await self.process.here("heard from a neighbour")
        if answer is None:
            raise Unavailable(subject)
        return answer
