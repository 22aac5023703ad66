"""The gateway's ledger, as far as it can be read: each request with its attempts, through Sluicegate's admin API."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from services.cli.api import Api, unit
from services.cli.conformance.results import Broken
from services.cli.conformance.wire import Answer
from services.cli.errors import Trouble

OUR_ID = "x-sluicegate-request-id"
SECONDS = 20.0

T = TypeVar("T")


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One client request. decision: what was decided; attempts: what was bought for it, one row each."""

    decision: dict[str, Any]
    attempts: list[dict[str, Any]]

    @property
    def cost_nano_usd(self) -> int:
        return sum(int(attempt["cost_nano_usd"]) for attempt in self.attempts)

    @property
    def list_nano_usd(self) -> int:
        return sum(int(attempt["list_nano_usd"]) for attempt in self.attempts)


class Books:
    """Rows come a moment after the answer, so each question waits for them."""

    def __init__(self, api: Api) -> None:
        self.api = api

    async def of(self, answer: Answer) -> Entry:
        """What the ledger says about an answer, once it is complete. Raises Broken."""
        name = (answer.header(OUR_ID) or b"").decode()
        if not name:
            raise Broken(f"the answer has no {OUR_ID}: it cannot be looked up")
        return await self._when(lambda: self._story(name), lambda entry: True, f"request {name}")

    async def of_session(self, session: str, count: int, operation: str = "messages") -> list[Entry]:
        """All requests of a session in order, once there are so many."""

        def read() -> list[Entry] | None:
            found = self.api.get("/api/v1/requests", {"session": session, "limit": 1000})["items"]
            mine = [item for item in found if item["operation"] == operation]
            entries = [self._story(item["request_id"]) for item in reversed(mine)]
            return [entry for entry in entries if entry] if all(entries) else None

        return await self._when(read, lambda entries: len(entries) >= count, f"{count} requests of session {session}")

    async def grouped_by_session(self, session: str) -> dict[str, Any] | None:
        """The line of the spend report for a session, None where there is none."""
        query = {"group_by": "session", "session": session}
        items = (await asyncio.to_thread(self.api.get, "/api/v1/usage", query))["items"]
        return dict(items[0]) if items else None

    async def revoke(self, key: str) -> None:
        await asyncio.to_thread(self.api.post, f"/api/v1/keys/{unit(key)}/revoke")

    def _story(self, name: str) -> Entry | None:
        """None while it is not complete."""
        try:
            found = self.api.get(f"/api/v1/requests/{unit(name)}")
        except Trouble:
            return None
        entry = Entry(decision=found["decision"], attempts=found["attempts"])
        return entry if len(entry.attempts) >= int(entry.decision["attempt_count"]) else None

    async def _when(self, read: Callable[[], T | None], enough: Callable[[T], bool], what: str) -> T:
        deadline = time.monotonic() + SECONDS
        while True:
            found = await asyncio.to_thread(read)
            if found is not None and enough(found):
                return found
            if time.monotonic() > deadline:
                raise Broken(f"the ledger does not know {what} after {SECONDS:.0f} s")
            await asyncio.sleep(0.05)
