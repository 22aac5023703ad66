"""Ways to a broker of others: several servers, TLS, certificates and keys of our own."""

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from shared.bus import Bus, BusSettings, open_bus, provision
from shared.contracts.streams import LEDGER
from shared.errors import Unavailable
from shared.settings import SettingsError, environ_of
from tests.fixtures.broker import Broker
from tests.fixtures.nats_identities import Key, Operator
from tests.fixtures.ports import free_port
from tests.fixtures.tls import Authority
from tests.fixtures.waiting import until

NAMED = "authorization { user: gateway, password: 'p@ss,word' }\n"


@contextmanager
def running(folder: Path, more: str) -> Iterator[Broker]:
    broker = Broker(folder, more=more)
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()


def with_tls(authority: Authority, name: str = "127.0.0.1", more: str = "") -> str:
    """Lines for a broker with a certificate of this authority."""
    certificate, key = authority.pair(name, "server")
    return f"tls {{ cert_file: {json.dumps(str(certificate))}, key_file: {json.dumps(str(key))}, {more} }}\n"


async def reaches(settings: BusSettings) -> None:
    """All the way to a stream, which needs JetStream's API and an inbox."""
    async with open_bus(settings, "test") as bus:
        await provision(bus)
        assert await bus.append("ledger.0", b"x") == (await bus.end(LEDGER)).seq


async def refused(settings: BusSettings) -> str:
    """Why, in words."""
    with pytest.raises(Unavailable) as caught:
        async with open_bus(settings, "test"):
            pass
    return repr(caught.value.__cause__)


def settings(url: str, **more: object) -> BusSettings:
    given = {name: str(value) if isinstance(value, Path) else value for name, value in more.items()}
    return BusSettings(url=url, connect_timeout_seconds=1.0, **given)  # type: ignore[arg-type]  # of the caller's choice


async def test_a_start_passes_over_servers_that_are_away(broker: Broker) -> None:
    away = [f"nats://127.0.0.1:{free_port()}" for _ in range(2)]
    await reaches(settings(f"{away[0]}, {broker.url},{away[1]}", prefix="several"))


async def test_a_connection_goes_on_with_another_server(tmp_path: Path) -> None:
    with running(tmp_path / "a", "") as first, running(tmp_path / "b", "") as second:
        async with open_bus(settings(f"{first.url},{second.url}"), "test") as bus:
            used = _port(bus)
            (first if used == first.port else second).stop()
            await until(lambda: _port(bus) not in (0, used))


def _port(bus: Bus) -> int:
    """0 while there is no connection."""
    url = bus.client.connected_url
    return (url.port or 0) if url else 0


async def test_a_user_in_the_url_counts_for_all_servers(tmp_path: Path) -> None:
    with running(tmp_path, NAMED) as broker:
        away = f"nats://gateway:p%40ss%2Cword@127.0.0.1:{free_port()}"
        await reaches(settings(f"{away},{broker.url}"))
        await reaches(settings(broker.url, user="gateway", password="p@ss,word"))
        assert "Authorization" in await refused(settings(broker.url, user="gateway", password="other"))


async def test_a_token_in_the_url_still_counts(tmp_path: Path) -> None:
    with running(tmp_path, "authorization { token: sesame }\n") as broker:
        await reaches(settings(f"nats://sesame@127.0.0.1:{broker.port}"))


async def test_a_certificate_of_an_authority_of_ones_own_is_verified(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    with running(tmp_path, with_tls(ours)) as broker:
        tls = broker.url.replace("nats://", "tls://")
        await reaches(settings(tls, tls_ca_file=ours.file))
        await reaches(settings(broker.url, tls_ca_file=ours.file))
        assert "CERTIFICATE_VERIFY_FAILED" in await refused(settings(tls, tls_ca_file=theirs.file))
        assert "CERTIFICATE_VERIFY_FAILED" in await refused(settings(tls)), "the system's store does not know it"
        assert "CERTIFICATE_VERIFY_FAILED" in await refused(settings(broker.url)), "nor where the broker wants TLS"


async def test_a_certificate_of_another_name_is_refused(tmp_path: Path) -> None:
    ours = Authority(tmp_path / "ours")
    with running(tmp_path, with_tls(ours, "nats.acme.example")) as broker:
        assert "IP address mismatch" in await refused(settings(broker.url, tls_ca_file=ours.file))


async def test_a_broker_without_tls_is_told_no_secret_where_tls_is_wanted(tmp_path: Path) -> None:
    told: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.15.1","max_payload":1048576,"auth_required":true}\r\n')
        told.append(await reader.read())
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        for url in (f"tls://gateway:secret@127.0.0.1:{port}", f"tls://127.0.0.1:{port},nats://127.0.0.1:{port}"):
            assert "does not speak TLS" in await refused(settings(url))
    assert told
    assert not any(told)


async def test_tls_is_used_where_the_broker_leaves_it_to_us(tmp_path: Path) -> None:
    ours = Authority(tmp_path / "ours")
    with running(tmp_path, with_tls(ours) + "allow_non_tls: true\n") as broker:
        async with open_bus(settings(broker.url, tls_ca_file=ours.file), "test") as bus:
            info = json.loads(await _monitor(broker, "connz"))
            (connection,) = info["connections"]
            assert connection["tls_version"] in ("1.2", "1.3")
            assert bus.connected


async def _monitor(broker: Broker, page: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", broker.monitor_port)
    writer.write(f"GET /{page} HTTP/1.0\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return answer.partition(b"\r\n\r\n")[2]


@pytest.mark.filterwarnings("ignore:parameter 'timeout' of type 'float':DeprecationWarning")  # of nats-py
async def test_websockets_are_verified_alike(tmp_path: Path) -> None:
    ours, port = Authority(tmp_path / "ours"), free_port()
    listening = f'websocket {{ listen: "127.0.0.1:{port}"\n {with_tls(ours)} }}\n'
    with running(tmp_path, listening):
        await reaches(settings(f"wss://127.0.0.1:{port}", tls_ca_file=ours.file))
        assert "CERTIFICATE_VERIFY_FAILED" in await refused(settings(f"wss://127.0.0.1:{port}"))


async def test_the_monitor_is_asked_under_the_same_authority(bus_settings: BusSettings, tmp_path: Path) -> None:
    ours = Authority(tmp_path / "ours")

    async def varz(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.0 200 OK\r\n\r\n{"jetstream": {"config": {"sync_always": true}}}')
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(varz, "127.0.0.1", 0, ssl=ours.server("127.0.0.1")) as server:
        monitor = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with open_bus(msgspec.structs.replace(bus_settings, monitor_url=monitor), "test") as bus:
            with pytest.raises(Unavailable, match="bus monitor"):
                await bus.sync_always()
            known = Bus(bus.client, settings(bus_settings.url, monitor_url=monitor, tls_ca_file=ours.file))
            assert await known.sync_always()


async def test_a_broker_that_asks_for_a_certificate_gets_ours(tmp_path: Path) -> None:
    ours = Authority(tmp_path / "ours")
    certificate, key = ours.pair("gateway", "client")
    both = with_tls(ours, more=f"ca_file: {json.dumps(str(ours.file))}, verify: true")
    with running(tmp_path, both) as broker:
        await reaches(settings(broker.url, tls_ca_file=ours.file, tls_cert_file=certificate, tls_key_file=key))
        await refused(settings(broker.url, tls_ca_file=ours.file))


async def test_an_authority_that_is_exchanged_counts_for_the_next_connection(tmp_path: Path) -> None:
    """cert-manager writes new files long before the old ones end, and nobody starts a pod again for it."""
    before, after = Authority(tmp_path / "before"), Authority(tmp_path / "after")
    trusted = tmp_path / "ca.crt"
    trusted.write_bytes(before.file.read_bytes())
    with_tls(before)
    with running(tmp_path, with_tls(before)) as broker:
        async with open_bus(settings(broker.url, tls_ca_file=trusted), "test") as bus:
            broker.stop()
            trusted.write_text("torn")
            await until(lambda: not bus.connected)
            for made, old in zip(after.pair("127.0.0.1", "server"), before.pair("127.0.0.1", "server"), strict=True):
                old.write_bytes(made.read_bytes())
            broker.start()
            trusted.write_bytes(after.file.read_bytes())
            await until(lambda: bus.connected)


async def test_an_nkey_is_known_by_its_public_key(tmp_path: Path) -> None:
    user, stranger = Key("user"), Key("user")
    seed, other = tmp_path / "seed", tmp_path / "other"
    seed.write_text(f"{user.seed}\n")
    other.write_text(stranger.seed)
    with running(tmp_path, f"authorization {{ users: [ {{ nkey: {user.public} }} ] }}\n") as broker:
        await reaches(settings(broker.url, nkey_seed_file=seed))
        assert "Authorization" in await refused(settings(broker.url, nkey_seed_file=other))


async def test_credentials_of_the_brokers_operator_are_taken_and_others_refused(tmp_path: Path) -> None:
    operator = Operator()
    ours, others = tmp_path / "ours.creds", tmp_path / "others.creds"
    ours.write_text(operator.credentials().replace("\n", "\r\n"))  # as some editors leave it
    others.write_text(Operator().credentials())
    with running(tmp_path, operator.configuration()) as broker:
        await reaches(settings(broker.url, credentials_file=ours))
        assert "Authorization" in await refused(settings(broker.url, credentials_file=others))
        assert "Authorization" in await refused(settings(broker.url))


async def test_credentials_that_come_to_their_end_are_followed_by_those_written_since(tmp_path: Path) -> None:
    operator, file = Operator(), tmp_path / "user.creds"
    end = time.time() + 2
    file.write_text(operator.credentials(seconds=2))
    with running(tmp_path, operator.configuration()) as broker:
        async with open_bus(settings(broker.url, credentials_file=file), "test") as bus:
            file.write_text("torn")
            await until(lambda: not bus.connected, seconds=10)
            assert time.time() >= end - 1
            file.write_text(operator.credentials())
            await until(lambda: bus.connected, seconds=10)
            await provision(bus)


@pytest.mark.parametrize("name", ["tls_ca_file", "credentials_file", "nkey_seed_file"])
async def test_a_file_that_is_missing_or_of_no_use_ends_the_start_and_names_the_variable(
    name: str, tmp_path: Path
) -> None:
    useless = tmp_path / "useless"
    for content in (None, "", "SUAsecret", Key("account").seed):
        if content is not None:
            useless.write_text(content)
        with pytest.raises(SettingsError, match=f"BUS_{name.upper()}: .*{useless}") as caught:
            await refused(settings("nats://127.0.0.1:1", **{name: useless}))
        assert not content or content not in str(caught.value)


async def test_a_key_of_another_certificate_ends_the_start(tmp_path: Path) -> None:
    ours = Authority(tmp_path / "ours")
    (certificate, _), (_, key) = ours.pair("a", "a"), ours.pair("b", "b")
    with pytest.raises(SettingsError, match="BUS_TLS_CERT_FILE"):
        await refused(settings("tls://127.0.0.1:1", tls_cert_file=certificate, tls_key_file=key))


async def test_a_command_knows_the_broker_by_the_variables_of_a_service(tmp_path: Path) -> None:
    operator, file = Operator(), tmp_path / "user.creds"
    file.write_text(operator.credentials())
    ours = Authority(tmp_path / "ours")
    with running(tmp_path, operator.configuration() + with_tls(ours)) as broker:
        known = settings(
            f"nats://127.0.0.1:1,{broker.url}", credentials_file=file, tls_ca_file=ours.file, prefix="blue"
        )
        variables = environ_of(known, "ANALYTICS_BUS")
        assert await sluicegate(variables, "provision") == (0, "streams and buckets are made\n")
        code, said = await sluicegate(variables, "ledger", "verify", "--of", "analytics")
        assert code == 0, said
        code, said = await sluicegate(variables, "audit", "verify", "--of", "analytics")
        assert code == 0, said
        secret = f"nats://gateway:secret@127.0.0.1:{broker.port}"
        code, said = await sluicegate({}, "audit", "verify", "--bus-url", secret)
        assert code == 1
        assert "CERTIFICATE_VERIFY_FAILED" in said
        assert f"127.0.0.1:{broker.port}" in said
        assert "secret" not in said


async def sluicegate(environ: dict[str, str], *arguments: str) -> tuple[int, str]:
    """Exit code, and what it said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.cli", *arguments),
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)} | environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(60):
        said, _ = await process.communicate()
    return process.returncode or 0, said.decode()
