"""Messages handed on the moment they are read off the connection."""

import asyncio
from collections.abc import Callable
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

Taken = Callable[[Msg], None]
"""Must not raise, and must not block: it runs within the client's reading loop."""


class _Each(asyncio.Future[Any]):
    """Stands where the client keeps a future for one answer, and takes every message instead of the first.

    The client's own callbacks cost a queue, a task to wake and a coroutine for each message, before anything is done.
    """

    def __init__(self, take: Taken) -> None:
        super().__init__()
        self._take = take

    def set_result(self, result: Msg) -> None:
        self._take(result)


async def subscribe_now(client: Client, subject: str, take: Taken, queue: str = "") -> Subscription:
    """Call `take` with each message, in the order in which they come. Raises what the client raises."""
    return await client.subscribe(subject, queue=queue, future=_Each(take))
