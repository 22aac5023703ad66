"""Everything a check may use: the gateway, its keys, the provider behind it, its books, and the real client."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from services.cli.conformance.books import Books
from services.cli.conformance.claude import Claude
from services.cli.conformance.gateway import Gateway, message
from services.cli.conformance.provider import Received, Script, Upstream, says
from services.cli.conformance.results import Broken, expect
from services.cli.conformance.wire import Answer

HEARTBEAT_SECONDS = 15.0


class Keys(msgspec.Struct, frozen=True, kw_only=True):
    """Virtual keys of the gateway; an empty one is not there.

    main: may do anything and has a budget with room. spent: has none left. warned: has used three quarters or more.
    limited: may have one request at a time, or is at its rate limit. policy: may not use `denied_model`.
    storm: may make few requests a minute.
    """

    main: str
    spent: str = ""
    warned: str = ""
    revoked: str = ""
    limited: str = ""
    policy: str = ""
    storm: str = ""

    @property
    def all(self) -> tuple[str, ...]:
        return tuple(key for key in msgspec.structs.astuple(self) if key)


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway is known to have.

    allowed_model: one that the key `policy` may use. storm_requests: how many requests a minute the key `storm` may make.
    heartbeat_seconds: its silence before a ping. patient: wait for what takes minutes. logs: where no prompt may be found.
    snippet: what it tells developers to set. provider_secret: what must arrive upstream. mcp_url: of one MCP server.
    """

    keys: Keys
    denied_model: str = "claude-opus-4-8"
    allowed_model: str = "claude-haiku-4-5-20251001"
    storm_requests: int = 5
    heartbeat_seconds: float = HEARTBEAT_SECONDS
    patient: bool = False
    logs: tuple[Path, ...] = ()
    snippet: str = ""
    provider_secret: str = ""
    mcp_url: str = ""


class Scene:
    """provider None: it is not ours. books None: nobody can read its ledger. simulator: answers the real client.

    clients: of the real one; while there are none, `no_client` may say why.
    """

    def __init__(
        self,
        gateway: Gateway,
        facts: Facts,
        provider: Upstream | None = None,
        books: Books | None = None,
        simulator: Script | None = None,
    ) -> None:
        self.gateway, self.facts, self.keys = gateway, facts, facts.keys
        self.clients: tuple[Claude, ...] = ()
        self.no_client = ""
        self._simulator = simulator
        self._provider, self._books = provider, books

    @property
    def provider(self) -> Upstream:
        assert self._provider
        return self._provider

    @property
    def books(self) -> Books:
        assert self._books
        return self._books

    def let_the_simulator_answer(self) -> None:
        """From now on, every request: what it answers depends on the request alone, so that many can run at a time."""
        if self._provider and self._simulator:
            self._provider.script = self._simulator

    def lacks(self, needs: tuple[str, ...]) -> str:
        """Why a check with these needs cannot run, "" when it can."""
        for need in needs:
            reason, there = NEEDS[need]
            if not there(self):
                return self.no_client if need == "claude" and self.no_client else reason
        return ""

    async def ask(
        self, *more: tuple[str, str], key: str = "", script: Script | None = None, **fields: object
    ) -> Answer:
        """A small message; `script` is what the provider says to it."""
        return await self.sent(self.gateway.request(key or self.keys.main, message("hello", **fields), *more), script)

    async def sent(self, data: bytes, script: Script | None = None, seconds: float = 30.0) -> Answer:
        if script:
            self.provider.script = script
        return await self.gateway.send(data, seconds)

    async def sent_up(self, data: bytes, script: Script, seconds: float = 30.0) -> tuple[Answer, Received]:
        """Send these bytes while the provider plays `script`; the answer, and the one request that reached it."""
        before = len(self.provider.requests)
        answer = await self.sent(data, script, seconds)
        came = inference(self.provider.requests[before:])
        if len(came) != 1:
            raise Broken(f"{len(came)} requests reached the provider instead of 1 (answer: {answer.status})")
        return answer, came[0]

    async def none_up(self, data: bytes) -> Answer:
        """Send these bytes; nothing may reach the provider, where it is ours."""
        before = len(self._provider.requests) if self._provider else 0
        if self._provider:
            self._provider.script = says(b"HTTP/1.1 500 Not Expected\r\nContent-Length: 0\r\n\r\n")
        answer = await self.gateway.send(data)
        came = inference(self._provider.requests[before:]) if self._provider else []
        expect(not came, f"{len(came)} requests reached the provider (answer: {answer.status})")
        return answer


def inference(requests: list[Received]) -> list[Received]:
    """Without what a gateway asks by itself, to see whether its provider is well."""
    return [request for request in requests if request.line.startswith(b"POST ")]


Need = tuple[str, Callable[[Scene], object]]

NEEDS: dict[str, Need] = {
    "provider": ("needs our provider behind the gateway (leave out --no-upstream)", lambda scene: scene._provider),
    "books": ("needs a ledger to read (--console-url, --admin-token)", lambda scene: scene._books),
    "claude": ("needs the real client (--claude)", lambda scene: scene.clients),
    "spent": ("needs a key with no budget left (--spent-key)", lambda scene: scene.keys.spent),
    "warned": ("needs a key near its cap (--warned-key)", lambda scene: scene.keys.warned),
    "revoked": ("needs a revoked key (--revoked-key)", lambda scene: scene.keys.revoked),
    "limited": ("needs a key at its rate limit (--limited-key)", lambda scene: scene.keys.limited),
    "policy": ("needs a key whose policy denies a model (--policy-key)", lambda scene: scene.keys.policy),
    "storm": ("needs a key with few requests a minute (--storm-key)", lambda scene: scene.keys.storm),
    "logs": ("needs the gateway's logs (--logs)", lambda scene: scene.facts.logs),
    "snippet": ("needs what developers are told to set (--snippet)", lambda scene: scene.facts.snippet),
    "patience": (
        f"takes minutes where pings come every {HEARTBEAT_SECONDS:.0f} s (--slow)",
        lambda scene: scene.facts.patient or scene.facts.heartbeat_seconds < HEARTBEAT_SECONDS,
    ),
}
"""What a check may need: why it does not run without, and whether it is there."""


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether it came true in time."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110  # another process, or a played provider, makes it true
                await asyncio.sleep(0.02)
            return True
    return condition()
