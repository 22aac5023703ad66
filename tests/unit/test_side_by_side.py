"""Loops that belong together end together, whatever they do with a cancellation."""

import asyncio

import pytest

from shared import service
from shared.errors import Overtaken
from shared.service import side_by_side


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "END_AGAIN_SECONDS", 0.01)


class Loop:
    """Swallows the first `swallows` cancellations."""

    def __init__(self, swallows: int = 0) -> None:
        self._left, self.ended = swallows, False

    async def run(self) -> None:
        try:
            while True:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    if not self._left:
                        raise
                    self._left -= 1
        finally:
            self.ended = True


async def fails() -> None:
    raise Overtaken("a log")


async def test_what_one_raises_is_raised_when_all_have_ended() -> None:
    loops = [Loop(), Loop(swallows=1), Loop(swallows=3)]
    async with asyncio.timeout(5):
        with pytest.raises(Overtaken):
            await side_by_side(*(loop.run() for loop in loops), fails())
    assert all(loop.ended for loop in loops)


@pytest.mark.parametrize("times", [1, 5])
async def test_cancelled_it_ends_all_even_those_that_swallow_it(times: int) -> None:
    loops = [Loop(), Loop(swallows=1), Loop(swallows=3)]
    running = asyncio.create_task(side_by_side(*(loop.run() for loop in loops)))
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        for _ in range(times):
            await asyncio.sleep(0)
            running.cancel()
        await asyncio.wait([running])
    assert running.cancelled()
    assert all(loop.ended for loop in loops)
