"""`sluicegate up` with every real service: what a newcomer sees, and what survives."""

import asyncio
import os
import signal
import socket
import time
from asyncio.subprocess import Process
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.fixtures.up import ANY_PORTS, Up, launch, running, stop
from tests.fixtures.waiting import until

SERVICES = {"nats", "budget", "pricing", "audit", "analytics", "console", "edge", "simulator"}
MESSAGE = {"model": "claude-haiku-5-5", "max_tokens": 64, "messages": [{"role": "user", "content": "hello"}]}

ORG = """
providers:
  - {name: anthropic, kind: anthropic, base_url: "https://api.anthropic.com", credential: "env:ANTHROPIC_API_KEY"}
customers:
  - id: acme
    teams:
      - id: platform
        keys:
          - {id: one, secret: vk-test-0001, budgets: [{limit_usd: 5, period: day}]}
          - {id: two}
"""


def alive(pids: Iterable[int]) -> list[int]:
    """Those that still run; a zombie does not."""
    found = []
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state != "Z":
            found.append(pid)
    return found


def pids_of(up: Up) -> list[int]:
    return [pid for pids in up.now()["pids"].values() for pid in pids]


async def ask(up: Up, key: str) -> tuple[int, dict[str, Any]]:
    """One small message through the edge."""
    headers = {"authorization": f"Bearer {key}", "anthropic-version": "2023-06-01"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{up.base_url}/v1/messages", json=MESSAGE, headers=headers) as answer,
    ):
        return answer.status, await answer.json()


async def ended(process: Process) -> int:
    async with asyncio.timeout(30):
        return await process.wait()


async def test_a_newcomer_gets_everything_ready_uses_it_stops_it_and_finds_it_again(tmp_path: Path) -> None:
    async with running(tmp_path, arguments=ANY_PORTS) as up:
        assert set(up.ports["pids"]) == SERVICES
        said = up.said()
        assert f"export ANTHROPIC_BASE_URL={up.base_url}\n" in said
        assert f"export ANTHROPIC_AUTH_TOKEN={up.first_key}\n" in said
        assert up.console_url in said
        assert up.admin_token in said
        assert "goes to the simulator" in said
        assert str(up.bill) in said
        assert "Traceback" not in said
        for secret in ("admin-token", "first-key"):
            assert (up.data_dir / secret).stat().st_mode & 0o777 == 0o600
        status, body = await ask(up, up.first_key)
        assert status == 200, body
        assert len(up.bill.read_text().splitlines()) == 1
        spent = await until(lambda: _spent(up), what="the spend")
        first, pids = up, pids_of(up)
    assert up.process.returncode == 0
    assert not alive(pids)
    assert not (up.data_dir / "ports.json").exists()
    async with running(tmp_path, arguments=ANY_PORTS) as up:
        assert (up.admin_token, up.first_key) == (first.admin_token, first.first_key)
        assert f"export ANTHROPIC_AUTH_TOKEN={up.first_key}\n" in up.said()
        assert await until(lambda: _spent(up), what="the spend") == spent
        assert (await ask(up, up.first_key))[0] == 200
    async with running(tmp_path, environ={"ANTHROPIC_API_KEY": "sk-of-a-test"}) as up:  # nothing is sent with it
        assert set(up.ports["pids"]) == SERVICES - {"simulator"}
        (provider,) = up.api.get("/api/v1/providers")["items"]
        assert provider["base_url"] == "https://api.anthropic.com"
        assert "anthropic goes to api.anthropic.com\n" in up.said()
        assert "sk-of-a-test" not in up.said()


def _spent(up: Up) -> int:
    """Of the first key, in nano-USD."""
    items = up.api.get("/api/v1/budgets")["items"]
    return sum(item["spent_nano_usd"] for item in items if item["scope"] == "key")


async def test_a_file_that_names_anthropic_goes_to_the_simulator_without_a_key(tmp_path: Path) -> None:
    org = tmp_path / "org.yaml"
    org.write_text(ORG)
    async with running(tmp_path, org=org, environ={"SLUICEGATE_ADMIN_TOKEN": "token-of-ours"}) as up:
        assert up.admin_token == "token-of-ours"
        assert up.first_key == "vk-test-0001"
        assert "goes to the simulator" in up.said()
        assert (await ask(up, "vk-test-0001"))[0] == 200
        assert (await ask(up, "vk-unknown"))[0] == 401
    assert not (up.data_dir / "admin-token").exists(), "a token that was given is not kept for the next start"


@pytest.mark.alone
async def test_each_service_can_be_killed_and_is_back_within_two_seconds(tmp_path: Path) -> None:
    async with running(tmp_path) as up:
        for name in sorted(SERVICES):
            before = up.now()
            os.kill(before["pids"][name][0], signal.SIGKILL)
            began = time.monotonic()
            after = await until(lambda: _changed(up, name, before["pids"][name]), 2, f"a new {name}")  # noqa: B023  # used within this turn
            assert after is not None
            assert time.monotonic() - began < 2
            for port in ("edge", "console", "clickhouse", "nats"):
                assert after[port] == before[port]
            await until(lambda: _works(up), 20, f"the whole after {name} was killed\n{up.said()}")
        await _second_start(up)


async def _second_start(up: Up) -> None:
    """One clear line, and the first one goes on."""
    process, _ = await launch(up.data_dir.parent)
    assert await ended(process) == 1
    line = up.said().splitlines()[-1]
    assert line.startswith("Error: sluicegate already runs on ")
    assert f"pid {up.process.pid}" in line
    assert await _works(up)


def _changed(up: Up, name: str, pids: list[int]) -> dict[str, Any] | None:
    now = up.now()
    return now if now["pids"][name] != pids and alive(now["pids"][name]) else None


async def _works(up: Up) -> bool:
    try:
        return (await ask(up, up.first_key))[0] == 200
    except aiohttp.ClientError:
        return False


@pytest.mark.parametrize("option", ["--edge-port", "--console-port", "--clickhouse-port", "--nats-port"])
async def test_a_taken_port_is_one_line_that_names_it_and_the_option(option: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process, transcript = await launch(tmp_path, option, str(port))
        assert await ended(process) == 1
    assert transcript.read_text().splitlines() == [
        f"Error: port {port} is taken by another program; choose another with {option} (0 takes any free one)"
    ]


async def test_a_directory_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    process, transcript = await launch(tmp_path)
    assert await ended(process) == 1
    (line,) = transcript.read_text().splitlines()
    assert line.startswith(f"Error: the data directory {tmp_path / 'data'} cannot be written")


async def test_a_wrong_organisation_file_is_one_line_before_anything_starts(tmp_path: Path) -> None:
    org = tmp_path / "org.yaml"
    org.write_text("customers: [{id: a, budgest: []}]")
    process, transcript = await launch(tmp_path, "--org", str(org))
    assert await ended(process) == 1
    (line,) = transcript.read_text().splitlines()
    assert "budgest" in line
    assert not (tmp_path / "data").exists()


async def test_after_a_killed_supervisor_nothing_is_left_and_the_next_start_finds_all_state(tmp_path: Path) -> None:
    async with running(tmp_path) as up:
        pids = pids_of(up)
        ports = up.ports
        assert (await ask(up, up.first_key))[0] == 200
        up.process.kill()
        await ended(up.process)
        await until(lambda: not alive(pids), 5, "the end of the children")
    arguments = ("--edge-port", str(ports["edge"]), "--nats-port", str(ports["nats"]))
    async with running(tmp_path, arguments=arguments) as again:
        assert again.ports["edge"] == ports["edge"]
        assert again.first_key == up.first_key
        await until(lambda: _spent(again), what="the spend before the kill")


async def test_a_signal_during_the_start_stops_what_has_started(tmp_path: Path) -> None:
    process, transcript = await launch(tmp_path)
    log = tmp_path / "data" / "logs" / "budget.log"
    await until(log.exists, 30, "the services' start")
    await stop(process, signal.SIGTERM)
    assert process.returncode == 0, transcript.read_text()
    await until(lambda: not _in(tmp_path), 5, "the end of the children")


def _in(tmp_path: Path) -> list[int]:
    """Processes that were started with something of this directory in their environment or command."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                told = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
            if str(tmp_path / "data").encode() in told:
                found.append(int(folder.name))
    return alive(found)
