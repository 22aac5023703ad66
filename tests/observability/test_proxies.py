"""Streams through real reverse proxies, with the configurations of k8s/proxies, while the provider is silent.

The times are shortened: the proxy gives up after 3 s, the provider says nothing for 8 s, the edge pings after each second.
"""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
import pytest

from tests.fixtures.ports import free_port
from tests.fixtures.up import Up, running
from tests.fixtures.waiting import until
from tests.observability.files import ROOT
from tests.observability.programs import configured, program, started

SILENCE_SECONDS = 8
MESSAGE = {
    "model": "claude-haiku-5-5",
    "max_tokens": 64,
    "stream": True,
    "messages": [{"role": "user", "content": f"[[sim: slow={SILENCE_SECONDS}]]"}],
}
NGINX_HERE = "access_log off; " + " ".join(
    f"{what}_temp_path {what};" for what in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
)
PROXIES = ("nginx", "haproxy", "caddy")
FILES = {"nginx": "nginx.conf", "haproxy": "haproxy.cfg", "caddy": "Caddyfile"}


class Heard(msgspec.Struct, kw_only=True):
    """What a client got. broken: the connection ended before the answer. first_ping: seconds after the request."""

    body: bytes
    broken: bool
    first_ping: float


def command(proxy: str, config: Path) -> tuple[str, ...]:
    """In the foreground, and nothing written outside of the folder of `config`."""
    match proxy:
        case "nginx":
            here = f"daemon off; pid {config.parent}/nginx.pid; error_log stderr;"
            return program("nginx"), "-p", str(config.parent), "-c", str(config), "-g", here
        case "haproxy":
            return program("haproxy"), "-db", "-f", str(config)
        case _:
            return program("caddy"), "run", "--adapter", "caddyfile", "--config", str(config)


def shortened(proxy: str, edge: int, port: int) -> str:
    """The shipped file with this test's ports and times, and what lets it run beside others, as anybody."""
    text = (ROOT / "k8s" / "proxies" / FILES[proxy]).read_text()
    assert text.count("127.0.0.1:8080") == 1
    assert text.count(":8000") + text.count("listen 8000") == 1
    assert text.count("960s") == 2
    text = text.replace("127.0.0.1:8080", f"127.0.0.1:{edge}").replace("960s", "3s")
    if proxy == "caddy":
        text = "{\n\tadmin off\n}\n" + text  # its API has a fixed port
    elif proxy == "nginx":
        text = text.replace("http {\n", f"http {{\n{NGINX_HERE}\n")
    return text.replace("listen 8000", f"listen 127.0.0.1:{port}").replace(":8000", f":{port}")


@asynccontextmanager
async def behind(proxy: str, up: Up, folder: Path) -> AsyncIterator[str]:
    """The address of a proxy before this edge."""
    port = free_port()
    config = configured(folder, FILES[proxy], shortened(proxy, up.ports["edge"], port))
    async with started(folder, *command(proxy, config)):
        await until(lambda: listens(port), 20, proxy)
        yield f"http://127.0.0.1:{port}"


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


async def listen(url: str, up: Up) -> Heard:
    headers = {"authorization": f"Bearer {up.first_key}", "anthropic-version": "2023-06-01"}
    began, heard = time.monotonic(), Heard(body=b"", broken=False, first_ping=0.0)
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{url}/anthropic/v1/messages", json=MESSAGE) as answer,
    ):
        assert answer.status == 200, await answer.text()
        try:
            async for piece in answer.content.iter_any():
                heard.body += piece
                if not heard.first_ping and b"event: ping" in heard.body:
                    heard.first_ping = time.monotonic() - began
        except aiohttp.ClientPayloadError:
            heard.broken = True
    return heard


async def through_all(up: Up, folder: Path) -> Mapping[str, Heard]:
    """The same stream through each proxy, at the same time."""

    async def through(proxy: str) -> Heard:
        async with behind(proxy, up, folder / proxy) as url:
            return await listen(url, up)

    return dict(zip(PROXIES, await asyncio.gather(*map(through, PROXIES)), strict=True))


@pytest.fixture(autouse=True)
def programs() -> None:
    for proxy in PROXIES:
        program(proxy)


async def test_a_stream_survives_a_silence_longer_than_the_proxys_timeout(tmp_path: Path) -> None:
    async with running(tmp_path, environ={"SLUICEGATE_EDGE_HEARTBEAT_SECONDS": "1"}) as up:
        for proxy, heard in (await through_all(up, tmp_path / "proxies")).items():
            assert not heard.broken, f"{proxy}: {heard}"
            assert heard.body.rstrip().endswith(b'{"type":"message_stop"}'), f"{proxy}: {heard}"
            assert heard.body.count(b"event: ping") >= SILENCE_SECONDS - 2, f"{proxy}: {heard}"
            assert heard.first_ping < SILENCE_SECONDS / 2, f"{proxy} kept the first ping back: {heard}"


async def test_without_pings_each_of_these_proxies_would_have_cut_it(tmp_path: Path) -> None:
    async with running(tmp_path, environ={"SLUICEGATE_EDGE_HEARTBEAT_SECONDS": "60"}) as up:
        for proxy, heard in (await through_all(up, tmp_path / "proxies")).items():
            assert b"message_stop" not in heard.body, f"{proxy}: {heard}"
