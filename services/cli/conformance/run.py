"""Runs the checks: those that speak HTTP one after the other, then those with the real client, several at a time."""

import asyncio
import time
from collections.abc import Callable, Sequence
from importlib import metadata

import httptools

from services.cli.conformance import checks  # noqa: F401  # hangs every check on the checklist
from services.cli.conformance.checklist import CHECKS, ITEMS, Check
from services.cli.conformance.claude import Claude
from services.cli.conformance.results import Broken, Finding, NotOffered, Report, verdict
from services.cli.conformance.scene import Scene
from services.cli.errors import Trouble
from shared.clock import now, rfc3339

CLIENTS_AT_A_TIME = 3
CHECK_SECONDS = 400.0

Progress = Callable[[str], None]


async def run(scene: Scene, only: Sequence[int] = (), progress: Progress = lambda _: None) -> Report:
    """only: numbers of items; all when empty."""
    wanted = sorted((each for each in CHECKS if not only or each.item in only), key=lambda each: each.item)
    found = list[Finding]()
    for each in wanted:
        if each.look:
            progress(f"{each.item}: {each.title}")
            found.append(await _look(scene, each, None))
    if scene.clients and (with_client := [each for each in wanted if each.look_with_client]):
        progress(f"{len(with_client)} checks with the real client")
        scene.let_the_simulator_answer()
        room = asyncio.Semaphore(CLIENTS_AT_A_TIME)

        async def one(each: Check, claude: Claude) -> Finding:
            async with room:
                return await _look(scene, each, claude)

        for last in (False, True):
            those = [each for each in with_client if each.last == last]
            found += await asyncio.gather(*(one(each, claude) for each in those for claude in scene.clients))
    else:
        found += [await _look(scene, each, None) for each in wanted if each.look_with_client]
    return _report(scene, only, found)


async def _look(scene: Scene, each: Check, claude: Claude | None) -> Finding:
    began = time.monotonic()
    if lacking := scene.lacks(each.needs):
        status, evidence = "not run", lacking
    else:
        status, evidence = await _outcome(scene, each, claude)
    return Finding(
        item=each.item,
        check=each.title,
        status=status,  # type: ignore[arg-type]  # one of the three, from `_outcome`
        evidence=" ".join(evidence.split()),
        seconds=round(time.monotonic() - began, 2),
        client=claude.version if claude else "",
    )


async def _outcome(scene: Scene, each: Check, claude: Claude | None) -> tuple[str, str]:
    """Whatever a broken gateway does to a check is the gateway's failure."""
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return "passed", await _evidence(scene, each, claude)
    except NotOffered as reason:
        return "not offered", str(reason)
    except (Broken, Trouble) as error:
        return "failed", str(error)
    except TimeoutError:
        return "failed", f"{each.title}: nothing came for too long"
    except (httptools.HttpParserError, OSError, AssertionError, ValueError, KeyError) as error:
        return "failed", f"{each.title}: {type(error).__name__} {error}"


async def _evidence(scene: Scene, each: Check, claude: Claude | None) -> str:
    if each.look_with_client and claude:
        return await each.look_with_client(scene, claude)
    assert each.look
    return await each.look(scene)


def _report(scene: Scene, only: Sequence[int], found: list[Finding]) -> Report:
    items = [item for number, item in ITEMS.items() if not only or number in only]
    return Report(
        at=rfc3339(now()),
        program=f"sluicegate {metadata.version('sluicegate')}",
        base_url=scene.gateway.base_url,
        clients=tuple(claude.version for claude in scene.clients),
        items=tuple(verdict(item, [each for each in found if each.item == item.number]) for item in items),
    )
