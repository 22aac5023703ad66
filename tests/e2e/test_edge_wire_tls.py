"""Client connections over TLS: the certificate and its changes, and clients that are none."""

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from services.edge.handlers.request import Limits
from services.edge.handlers.server import Server
from services.edge.stores.certificate import Certificate
from tests.e2e.test_edge_wire_connection import Echo, Timeouts
from tests.fixtures.edge import Edge, Start, start_edge
from tests.fixtures.talk import FIRST_TURN, STREAMED
from tests.fixtures.tls import Authority
from tests.fixtures.upstream import Turn, stream, upstream
from tests.fixtures.waiting import until
from tests.fixtures.wire import RawClient, post

__all__ = ["start_edge", "upstream"]  # fixtures

NAME = "gateway.test"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def certificate(authority: Authority) -> Certificate:
    return Certificate(*map(str, authority.pair(NAME)))


@pytest.fixture
async def port(echo: Echo, certificate: Certificate) -> AsyncIterator[int]:
    running = Server(echo, Timeouts(), Limits(body_bytes=2**20, header_bytes=4096), connections_most=20)
    yield await running.listen("127.0.0.1", 0, tls=certificate.listening)
    await running.drain(0.1)


def secure(port: int, authority: Authority, name: str = NAME) -> RawClient:
    return RawClient(port, tls=authority.client(), name=name)


def serial(client: RawClient) -> str:
    return str(client.writer.get_extra_info("peercert")["serialNumber"])


async def test_requests_are_answered_and_the_protocol_is_agreed_on(port: int, authority: Authority) -> None:
    context = authority.client()
    context.set_alpn_protocols(["h2", "http/1.1"])
    async with RawClient(port, tls=context, name=NAME) as client:
        client.send(post("/a", b"1") + post("/b", b"2"))
        assert [(await client.answer()).body for _ in range(2)] == [b"POST /a 1", b"POST /b 2"]
        agreed = client.writer.get_extra_info("ssl_object")
        assert agreed.selected_alpn_protocol() == "http/1.1"
        assert agreed.version() in {"TLSv1.2", "TLSv1.3"}


async def test_tls_before_1_2_is_refused(port: int, authority: Authority) -> None:
    context = authority.client()
    with pytest.warns(DeprecationWarning):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        await RawClient(port, tls=context, name=NAME).__aenter__()


async def test_a_new_certificate_serves_new_connections_and_the_old_ones_go_on(
    port: int, authority: Authority, certificate: Certificate
) -> None:
    async with secure(port, authority) as before:
        authority.pair(NAME)
        await certificate.look()
        async with secure(port, authority) as after:
            assert serial(before) != serial(after)
            for client in (before, after):
                client.send(post("/a", b"1"))
                assert (await client.answer()).body == b"POST /a 1"


async def test_a_client_that_names_no_server_gets_the_new_certificate_too(
    port: int, authority: Authority, certificate: Certificate
) -> None:
    authority.pair("127.0.0.1")
    await certificate.look()
    async with secure(port, authority, name="127.0.0.1") as client:  # an address is not sent as a name
        client.send(post("/a", b"1"))
        assert (await client.answer()).status == 200


async def test_the_links_of_a_kubernetes_volume_are_followed(tmp_path: Path, authority: Authority) -> None:
    """The files are links into `..data`, itself a link, which is replaced: neither link nor name of a file changes."""
    for number in (1, 2):
        folder = tmp_path / f"..2026_{number}"
        folder.mkdir()
        for made in authority.pair(NAME):
            (folder / made.name).write_bytes(made.read_bytes())
    (tmp_path / "..data").symlink_to("..2026_1")
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    certificate = Certificate(str(tmp_path / "tls.crt"), str(tmp_path / "tls.key"))
    watching = asyncio.create_task(certificate.watch(0.01))
    with capture_logs() as logs:
        (tmp_path / "..data_tmp").symlink_to("..2026_2")
        (tmp_path / "..data_tmp").replace(tmp_path / "..data")
        await until(lambda: logs)
    watching.cancel()
    assert [line["event"] for line in logs] == ["edge.certificate_reloaded"]


@pytest.mark.parametrize("breakage", ["junk", "half", "other key", "gone"])
async def test_a_broken_new_certificate_keeps_the_old_one_and_is_told_once(
    port: int, authority: Authority, certificate: Certificate, tmp_path: Path, breakage: str
) -> None:
    files = authority.pair(NAME)
    await certificate.look()
    match breakage:
        case "junk":
            files[0].write_bytes(os.urandom(1000))
        case "half":
            files[0].write_bytes(files[0].read_bytes()[:300])
        case "other key":
            files[1].write_bytes(authority.pair(NAME, "other")[1].read_bytes())
        case "gone":
            files[1].unlink()
    with capture_logs() as logs:
        await certificate.look()
        await certificate.look()
    assert [line["event"] for line in logs] == ["edge.certificate_not_reloaded"]
    assert REGISTRY.get_sample_value("sluicegate_edge_certificate_stale") == 1
    async with secure(port, authority) as client:
        client.send(post("/a", b"1"))
        assert (await client.answer()).status == 200
        old = serial(client)
    authority.pair(NAME)
    await certificate.look()
    assert REGISTRY.get_sample_value("sluicegate_edge_certificate_stale") == 0
    async with secure(port, authority) as client:
        assert serial(client) != old


def test_a_certificate_that_cannot_be_read_is_named_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"tls\.crt"):
        Certificate(str(tmp_path / "tls.crt"), str(tmp_path / "tls.key"))


@pytest.mark.parametrize(
    "hello",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\xff\xff" + b"\x00" * 1000,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)) * 3,
        b"\x00" * 100_000,
        b"",
    ],
)
async def test_what_is_no_handshake_is_hung_up_on_and_harms_nobody(
    port: int, authority: Authority, hello: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with RawClient(port) as bad:
        bad.send(hello)
        with suppress(ConnectionError):
            assert len(await bad.ended(3)) < 100  # at most an alert
    async with secure(port, authority) as good:
        good.send(post("/a", b"1"))
        assert (await good.answer()).status == 200
    assert caplog.records == []


@pytest.mark.alone
async def test_a_client_that_leaves_is_noticed_within_100_ms(port: int, echo: Echo, authority: Authority) -> None:
    echo.gate = asyncio.Event()
    for leave in (RawClient.close, RawClient.reset, shut):
        client = await secure(port, authority).__aenter__()
        client.send(post("/a", b"1"))
        await until(lambda: len(echo.requests) > echo.gone)
        gone, at = echo.gone, asyncio.get_running_loop().time()
        leave(client)
        await until(partial(more_than, echo, gone))
        assert asyncio.get_running_loop().time() - at < 0.1
        client.reset()


def more_than(echo: Echo, gone: int) -> bool:
    return echo.gone > gone


def shut(client: RawClient) -> None:
    """As a process that is killed: the kernel says goodbye, TLS does not."""
    with socket.socket(fileno=os.dup(client.writer.get_extra_info("socket").fileno())) as same:
        same.shutdown(socket.SHUT_RDWR)


async def test_a_refused_request_is_answered_before_the_connection_is_closed(port: int, authority: Authority) -> None:
    async with secure(port, authority) as client:
        client.send(post("/big", b"x" * (2**20 + 1)))
        answer = await client.answer()
        assert (answer.status, answer.whole) == (413, True)


async def test_an_idle_connection_is_closed(port: int, authority: Authority) -> None:
    async with secure(port, authority) as client:
        client.send(post("/a", b""))
        await client.answer()
        assert await client.ended(4) == b""


# The whole edge.


@pytest.fixture
async def edge(start_edge: Start, authority: Authority) -> AsyncIterator[Edge]:
    cert_file, key_file = authority.pair(NAME)
    async with start_edge(tls_cert_file=str(cert_file), tls_key_file=str(key_file), tls_reload_seconds=0.05) as running:
        yield running


async def test_a_stream_goes_out_over_tls_as_it_came_while_the_certificate_changes(
    edge: Edge, authority: Authority
) -> None:
    gate = asyncio.Event()

    async def script(turn: Turn) -> None:
        await turn.start_stream()
        await turn.chunk(FIRST_TURN[:700])
        await gate.wait()
        await turn.chunk(FIRST_TURN[700:])
        await turn.write(b"0\r\n\r\n")

    edge.upstream.script = script
    async with secure(edge.port, authority) as client:
        client.send(post("/v1/messages", STREAMED))
        await client.until_body(FIRST_TURN[:300])
        before = serial(client)
        authority.pair(NAME)

        async def is_new() -> bool:
            async with secure(edge.port, authority) as other:
                return serial(other) != before

        await until(is_new)
        gate.set()
        answer = await client.answer()
    assert (answer.body, answer.whole) == (FIRST_TURN, True)


@pytest.mark.alone
async def test_a_client_that_leaves_over_tls_closes_the_provider_s_connection_within_100_ms(
    edge: Edge, authority: Authority
) -> None:
    closed = asyncio.Event()

    async def script(turn: Turn) -> None:
        await turn.start_stream()
        await turn.chunk(FIRST_TURN[:800])
        await turn.hung_up()
        closed.set()

    edge.upstream.script = script
    async with secure(edge.port, authority) as client:
        client.send(post("/v1/messages", STREAMED))
        await client.until_body(FIRST_TURN[:200])
        client.close()
        await asyncio.wait_for(closed.wait(), 0.1)
    assert (await edge.usage())[0].outcome == "client_gone"


async def test_many_requests_over_one_tls_connection_are_forwarded(edge: Edge, authority: Authority) -> None:
    edge.upstream.script = lambda turn: turn.write(stream(FIRST_TURN))
    async with secure(edge.port, authority) as client:
        for _ in range(5):
            client.send(post("/v1/messages", STREAMED))
            assert (await client.answer()).body == FIRST_TURN
