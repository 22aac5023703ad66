"""A silent stream through a real Traefik, with the files of k8s/proxies; run by tests/observability/traefik.

Its limits are of whole requests and answers, so unlike the others it is not the one that the pings keep from cutting: shown is
that it keeps nothing back, and waits.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from tests.fixtures.ports import free_port
from tests.fixtures.up import Up, running
from tests.fixtures.waiting import until
from tests.observability.files import ROOT
from tests.observability.programs import configured, started
from tests.observability.test_proxies import SILENCE_SECONDS, listen

FILES = ("traefik.yml", "traefik-routes.yml")


@asynccontextmanager
async def behind(up: Up, folder: Path) -> AsyncIterator[str]:
    port = free_port()
    static, routes = ((ROOT / "k8s" / "proxies" / name).read_text() for name in FILES)
    assert static.count('":8000"') == 1
    assert routes.count("127.0.0.1:8080") == 1
    config = configured(folder, FILES[0], static.replace('":8000"', f'"127.0.0.1:{port}"'))
    (folder / FILES[1]).write_text(routes.replace("127.0.0.1:8080", f"127.0.0.1:{up.ports['edge']}"))
    async with started(folder, os.environ["TRAEFIK"], f"--configFile={config}"):
        url = f"http://127.0.0.1:{port}"
        await until(lambda: _routes(url), 20, "traefik's routes")  # it listens before it knows them
        yield url


async def _routes(url: str) -> bool:
    """The edge's own answer to a probe, not Traefik's 404."""
    async with aiohttp.ClientSession() as session:
        try:
            async with session.head(url) as answer:
                return answer.status == 200
        except aiohttp.ClientConnectionError:
            return False


async def test_a_stream_survives_a_silence_and_nothing_of_it_is_kept_back(tmp_path: Path) -> None:
    async with (
        running(tmp_path, environ={"SLUICEGATE_EDGE_HEARTBEAT_SECONDS": "1"}) as up,
        behind(up, tmp_path / "traefik") as url,
    ):
        heard = await listen(url, up)
    assert not heard.broken
    assert heard.body.rstrip().endswith(b'{"type":"message_stop"}')
    assert heard.body.count(b"event: ping") >= SILENCE_SECONDS - 2
    assert heard.first_ping < SILENCE_SECONDS / 2
