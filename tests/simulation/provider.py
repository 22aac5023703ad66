"""Somebody else's computer: works at its own pace and writes its own bill, whatever becomes of us."""

from typing import TYPE_CHECKING

import msgspec

from tests.simulation.clock import MICROS
from tests.simulation.company import INPUT_NANO_USD, OUTPUT_NANO_USD

if TYPE_CHECKING:
    from tests.simulation.world import Process, World

LAG_MICROS = 30_000  # until it notices that we hung up


class Work(msgspec.Struct, frozen=True):
    """What a request will make of it. fate: answers, refuses (529, free), breaks off half way."""

    input_tokens: int
    output_tokens: int
    begins_micros: int
    lasts_micros: int
    fate: str = "answers"


class Call:
    """One request under way."""

    def __init__(self, provider: "Provider", rid: str, work: Work, now: int, process: "Process") -> None:
        self.rid, self.work, self.process = rid, work, process
        self.begins = now + work.begins_micros
        self.ends = self.begins + work.lasts_micros
        if work.fate == "breaks":
            self.ends = self.begins + work.lasts_micros // 2
        self._provider = provider
        self.closed = False

    def output(self, now: int) -> int:
        """Tokens made by then."""
        whole = self.work.lasts_micros
        passed = min(now, self.ends) - self.begins
        return max(0, min(self.work.output_tokens, self.work.output_tokens * passed // whole))

    def close(self, now: int, lag: int = 0) -> None:
        """The connection is gone: what was made by then, and a little after, is billed."""
        if not self.closed:
            self.closed = True
            self._provider.book(self, self.output(now + lag))


class Provider:
    """bill: nano-USD by attempt."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.bill: dict[str, int] = {}
        self.calls: list[Call] = []

    def take(self, rid: str, work: Work, process: "Process") -> Call:
        now = self._world.now()
        assert rid not in self.bill, "an attempt is sent once"
        call = Call(self, rid, work, now, process)
        self.bill[rid] = 0
        self.calls.append(call)
        delay = (call.ends - now) / MICROS
        self._world.loop.call_later(delay, lambda: call.close(call.ends))
        return call

    def book(self, call: Call, output_tokens: int) -> None:
        if call.work.fate != "refuses":
            self.bill[call.rid] = call.work.input_tokens * INPUT_NANO_USD + output_tokens * OUTPUT_NANO_USD
        self._world.note(f"provider: {call.rid} billed {self.bill[call.rid]}")

    def hung_up(self, process: "Process") -> None:
        """The process on the other side died."""
        now = self._world.now()
        for call in self.calls:
            if call.process is process:
                call.close(now, LAG_MICROS)
