"""`sluicegate up` with a certificate: what it prints is where clients speak TLS, to each of its workers."""

import asyncio
import sys
from pathlib import Path

import aiohttp

from tests.fixtures.tls import Authority
from tests.fixtures.up import running

MESSAGE = {"model": "claude-haiku-5-5", "max_tokens": 64, "messages": [{"role": "user", "content": "hello"}]}


async def test_workers_share_a_port_and_speak_tls_on_it(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    certificate, key = authority.pair("127.0.0.1")
    arguments = ("--edge-workers", "2", "--edge-tls-cert", str(certificate), "--edge-tls-key", str(key))
    async with running(tmp_path, arguments=arguments) as up:
        base_url = f"https://127.0.0.1:{up.ports['edge']}/anthropic"
        assert f"ANTHROPIC_BASE_URL={base_url}\n" in up.said()
        assert {"edge", "edge-2"} <= set(up.ports["pids"])
        headers = {"authorization": f"Bearer {up.first_key}", "anthropic-version": "2023-06-01"}
        for _ in range(4):  # a connection each: the kernel picks the worker
            async with (
                aiohttp.ClientSession() as session,
                session.post(
                    f"{base_url}/v1/messages", json=MESSAGE, headers=headers, ssl=authority.client()
                ) as answer,
            ):
                assert answer.status == 200
        assert base_url in await said("connect", "--data-dir", str(up.data_dir))


async def test_a_certificate_without_its_key_is_refused_at_once(tmp_path: Path) -> None:
    certificate, _ = Authority(tmp_path / "authority").pair("127.0.0.1")
    assert "belong together" in await said("up", "--edge-tls-cert", str(certificate))


async def said(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "sluicegate"), *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), 30)
    return out.decode()
