"""Ways to a provider: proxies, TLS, several addresses, names that come to stand for others. Real sockets throughout."""

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohappyeyeballs import AddrInfoType
from structlog.testing import capture_logs

from services.edge.stores.upstream import Addresses, Dialler, Fetched, Proxies, Trust, UpstreamPool, fetch, origin_of
from shared.errors import Unavailable
from tests.fixtures import talk
from tests.fixtures.edge import Start, start_edge
from tests.fixtures.proxy import Proxy, proxy
from tests.fixtures.talk import FIRST_TURN
from tests.fixtures.tls import Authority
from tests.fixtures.upstream import Upstream, message_json, plain, says, stream, upstream
from tests.fixtures.waiting import until

__all__ = ["proxy", "start_edge", "upstream"]  # fixtures

NAME = "provider.test"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
async def secure(authority: Authority) -> AsyncIterator[Upstream]:
    """A provider called NAME, over TLS."""
    running = Upstream()
    running.host, running.tls = NAME, authority.server(NAME)
    await running.start()
    yield running
    await running.stop()


class Resolver:
    """Answers with `found`; `asked` counts. None is a failure."""

    def __init__(self, *found: str) -> None:
        self.found: tuple[str, ...] | None = found
        self.asked = 0
        self.gate: asyncio.Event | None = None

    async def __call__(self, host: str, port: int) -> list[AddrInfoType]:
        self.asked += 1
        if self.gate:
            await self.gate.wait()
        if self.found is None:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        family = {True: socket.AF_INET6, False: socket.AF_INET}
        return [(family[":" in ip], socket.SOCK_STREAM, 6, "", (ip, port)) for ip in self.found]


def pool_of(
    resolver: Resolver | None = None,
    proxies: dict[str, str] | None = None,
    trust: Trust | None = None,
    connect_seconds: float = 5.0,
    ttl_seconds: float = 30.0,
) -> UpstreamPool:
    addresses = Addresses(ttl_seconds, 3600.0, resolver or Resolver("127.0.0.1"))
    return UpstreamPool(Dialler(addresses, Proxies(proxies or {}), trust, connect_seconds))


async def ask(pool: UpstreamPool, provider: Upstream, seconds: float = 5.0) -> Fetched:
    origin = origin_of(provider.url)
    head = b"POST /v1/messages HTTP/1.1\r\nHost: " + origin.authority + b"\r\nContent-Length: 2\r\n\r\n"
    return await fetch(pool, origin, head, b"{}", seconds)


async def fails(pool: UpstreamPool, provider: Upstream) -> dict[str, object]:
    """Ask in vain; what was logged of it."""
    with capture_logs() as logs, pytest.raises(Unavailable):
        await ask(pool, provider)
    assert pool.open == 0
    [told] = [line for line in logs if line["event"] == "edge.upstream_unreachable"]
    return dict(told)


# Proxies.


async def through(proxy: Proxy, provider: Upstream, tls: Authority | None = None) -> dict[str, str]:
    """Start the proxy in front of the provider; the variables that lead there."""
    proxy.to = provider.port
    proxy.tls = tls.server("localhost") if tls else None
    await proxy.start()
    url = f"{'https' if tls else 'http'}://asha:s3cret@localhost:{proxy.port}"
    return {"http": url, "https": url}


@pytest.mark.parametrize("proxy_speaks_tls", [False, True])
async def test_an_https_provider_is_reached_through_a_tunnel_and_the_connection_kept(
    proxy: Proxy, secure: Upstream, authority: Authority, proxy_speaks_tls: bool
) -> None:
    proxies = await through(proxy, secure, authority if proxy_speaks_tls else None)
    pool = pool_of(proxies=proxies, trust=Trust(str(authority.file)))
    for _ in range(3):
        assert (await ask(pool, secure)).body == message_json()
    [head] = proxy.asked
    assert head.startswith(f"CONNECT {NAME}:{secure.port} HTTP/1.1\r\n".encode())
    assert b"Proxy-Authorization: Basic YXNoYTpzM2NyZXQ=\r\n" in head
    assert [request.line for request in secure.requests] == [b"POST /v1/messages HTTP/1.1"] * 3
    assert all(request.header("proxy-authorization") is None for request in secure.requests)
    await pool.close()


@pytest.mark.parametrize("proxy_speaks_tls", [False, True])
async def test_an_http_provider_is_asked_for_by_its_absolute_target(
    proxy: Proxy, upstream: Upstream, authority: Authority, proxy_speaks_tls: bool
) -> None:
    upstream.host = NAME
    proxies = await through(proxy, upstream, authority if proxy_speaks_tls else None)
    pool = pool_of(proxies=proxies, trust=Trust(str(authority.file)))
    assert (await ask(pool, upstream)).body == message_json()
    assert proxy.asked[0].startswith(f"POST http://{NAME}:{upstream.port}/v1/messages HTTP/1.1\r\n".encode())
    assert b"Proxy-Authorization: Basic " in proxy.asked[0]
    await pool.close()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 4\r\n\r\nno!!", "the proxy answered 407"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "the proxy answered 502"),
        (b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "the proxy sent more than its answer"),
        (b"SSH-2.0-OpenSSH\r\n", "the proxy's answer is no HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000, "the proxy's answer does not end"),
    ],
)
async def test_a_tunnel_that_is_refused_is_told_without_credentials(
    proxy: Proxy, secure: Upstream, authority: Authority, answer: bytes, reason: str
) -> None:
    proxy.answer = answer
    pool = pool_of(proxies=await through(proxy, secure), trust=Trust(str(authority.file)))
    told = await fails(pool, secure)
    assert (told["stage"], told["reason"], told["proxy"]) == ("proxy", reason, f"localhost:{proxy.port}")
    assert not any("s3cret" in str(value) or "Basic" in str(value) for value in told.values())
    assert secure.requests == []
    await until(lambda: proxy.open == 0, what="the connection to the proxy to be closed")


async def test_a_proxy_that_never_answers_is_given_up(proxy: Proxy, secure: Upstream, authority: Authority) -> None:
    proxy.answer = None
    proxies = await through(proxy, secure)
    pool = pool_of(proxies=proxies, trust=Trust(str(authority.file)), connect_seconds=0.2)
    told = await fails(pool, secure)
    assert (told["stage"], told["reason"]) == ("proxy", "no answer within 0.2 s")
    await until(lambda: proxy.open == 0, what="the connection to the proxy to be closed")


async def test_a_proxy_that_is_not_there_is_the_same_as_a_provider_that_is_not(secure: Upstream) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        pool = pool_of(proxies={"https": f"http://localhost:{taken.getsockname()[1]}"})
        assert (await fails(pool, secure))["stage"] == "connect"


# TLS.


async def test_a_provider_is_trusted_by_our_own_authority(secure: Upstream, authority: Authority) -> None:
    pool = pool_of(trust=Trust(str(authority.file)))
    assert (await ask(pool, secure)).body == message_json()
    await pool.close()


async def test_a_certificate_of_an_unknown_authority_is_refused_in_clear_words(secure: Upstream) -> None:
    told = await fails(pool_of(), secure)
    assert told["stage"] == "tls"
    assert "its certificate is not trusted" in str(told["reason"])
    assert "issuer" in str(told["reason"])
    assert secure.requests == []


async def test_a_certificate_for_another_name_is_refused(authority: Authority) -> None:
    other = Upstream()
    other.host, other.tls = NAME, authority.server("other.test")
    await other.start()
    told = await fails(pool_of(trust=Trust(str(authority.file))), other)
    assert "Hostname mismatch" in str(told["reason"])
    await other.stop()


async def test_a_handshake_that_hangs_is_given_up_and_leaves_nothing_open(authority: Authority) -> None:
    closed = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
        finally:
            closed.set()
            writer.transport.abort()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    provider = Upstream()
    provider.host, provider.tls, provider.port = NAME, authority.server(NAME), server.sockets[0].getsockname()[1]
    told = await fails(pool_of(connect_seconds=0.2), provider)
    assert (told["stage"], told["reason"]) == ("tls", "no answer within 0.2 s")
    await asyncio.wait_for(closed.wait(), 5)
    server.close()


async def test_another_authority_is_trusted_as_soon_as_its_file_is_there(
    secure: Upstream, authority: Authority, tmp_path: Path
) -> None:
    """As an administrator does who changes it under a running gateway: without a restart, for new connections."""
    file = tmp_path / "trusted.pem"
    file.write_bytes(Authority(tmp_path / "other").file.read_bytes())
    trust = Trust(str(file))
    pool = pool_of(trust=trust)
    await fails(pool, secure)
    file.write_bytes(b"not a certificate")
    trust._looked_at = 0.0  # it looks once a second at most
    with capture_logs() as logs, pytest.raises(Unavailable):
        await ask(pool, secure)
    assert {"edge.upstream_trust_not_reloaded", "edge.upstream_unreachable"} == {line["event"] for line in logs}
    file.write_bytes(authority.file.read_bytes())
    trust._looked_at = 0.0
    assert (await ask(pool, secure)).body == message_json()
    await pool.close()


def test_a_trust_file_that_cannot_be_read_is_named_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "broken.pem").write_text("not a certificate")
    for name in ("broken.pem", "missing.pem"):
        with pytest.raises(OSError, match=name):
            Trust(str(tmp_path / name))


async def test_a_provider_that_asks_for_our_certificate_gets_it(secure: Upstream, authority: Authority) -> None:
    assert secure.tls
    secure.tls.verify_mode = ssl.CERT_REQUIRED
    secure.tls.load_verify_locations(cafile=str(authority.file))
    certificate, key = authority.pair("edge.test", "client")
    pool = pool_of(trust=Trust(str(authority.file), str(certificate), str(key)))
    assert (await ask(pool, secure)).body == message_json()
    await pool.close()
    with pytest.raises(Unavailable):
        await ask(pool_of(trust=Trust(str(authority.file))), secure)


# Names and addresses.


@pytest.mark.alone
async def test_the_next_address_is_tried_beside_one_that_does_not_answer(upstream: Upstream) -> None:
    """The first one swallows what it gets, as behind a firewall."""
    upstream.host = NAME
    with socket.socket() as full, socket.socket() as first:
        full.bind(("127.0.0.2", upstream.port))
        full.listen(0)
        first.connect(("127.0.0.2", upstream.port))  # its queue holds one; the kernel answers no more
        with socket.socket() as second:
            second.setblocking(False)
            second.connect_ex(("127.0.0.2", upstream.port))
            pool, start = pool_of(Resolver("127.0.0.2", "127.0.0.1")), time.monotonic()
            assert (await ask(pool, upstream)).body == message_json()
            assert 0.2 < time.monotonic() - start < 1.0
    await pool.close()


async def test_a_name_is_looked_up_once_for_many_and_not_again_until_its_time_is_over(upstream: Upstream) -> None:
    upstream.host, resolver = NAME, Resolver("127.0.0.1")
    pool = pool_of(resolver)
    resolver.gate = asyncio.Event()
    asking = [asyncio.create_task(ask(pool, upstream)) for _ in range(10)]
    await until(lambda: resolver.asked)
    resolver.gate.set()
    await asyncio.gather(*asking)
    await ask(pool, upstream)
    assert resolver.asked == 1
    await pool.close()


async def test_idle_connections_to_an_address_that_the_name_left_are_closed(upstream: Upstream) -> None:
    """Left means: in two look-ups, since answers that take turns leave addresses out."""
    upstream.host, resolver = NAME, Resolver("127.0.0.1")
    pool = pool_of(resolver, ttl_seconds=0.05)
    await ask(pool, upstream)
    assert pool.open == 1
    resolver.found = ("127.0.0.3",)
    await asyncio.sleep(0.06)
    await ask(pool, upstream)  # asks again beside it, on the connection that is kept
    await until(lambda: resolver.asked == 2)
    assert pool.open == 1
    await asyncio.sleep(0.06)
    await ask(pool, upstream)
    await until(lambda: pool.open == 0, what="the connection to the old address to be closed")
    await pool.close()


@pytest.mark.alone
async def test_the_last_known_addresses_serve_while_the_resolver_fails_or_is_silent(upstream: Upstream) -> None:
    upstream.host, resolver = NAME, Resolver("127.0.0.1")
    pool = pool_of(resolver, ttl_seconds=0.0)
    origin = origin_of(upstream.url)
    await ask(pool, upstream)
    resolver.found = None
    (await pool.acquire(origin, fresh=True)).abort()
    addresses = pool._dialler.addresses
    addresses._known[(NAME, upstream.port)].until = 0.0
    resolver.gate, start = asyncio.Event(), time.monotonic()
    (await pool.acquire(origin, fresh=True)).abort()
    assert time.monotonic() - start < 3
    await pool.close()


async def test_a_name_that_nobody_knows_is_told_as_such(upstream: Upstream) -> None:
    upstream.host, resolver = NAME, Resolver()
    resolver.found = None
    told = await fails(pool_of(resolver), upstream)
    assert (told["stage"], told["host"]) == ("name", NAME)
    assert "Temporary failure in name resolution" in str(told["reason"])


async def test_the_system_s_resolver_is_asked_off_the_loop(upstream: Upstream) -> None:
    upstream.host = "localhost"
    pool = UpstreamPool()
    assert (await ask(pool, upstream)).body == message_json()
    upstream.host = "a" * 80 + ".test"  # no label may be so long
    with pytest.raises(Unavailable):
        await ask(pool, upstream)
    await pool.close()


# Age.


async def test_a_connection_that_is_too_old_is_not_used_again(upstream: Upstream) -> None:
    pool = UpstreamPool(lifetime_seconds=0.2)
    await ask(pool, upstream)
    await ask(pool, upstream)
    assert upstream.connections == 1
    await asyncio.sleep(0.25)
    await ask(pool, upstream)
    assert upstream.connections == 2
    await pool.close()


async def test_idle_connections_are_closed_without_a_further_request(upstream: Upstream) -> None:
    pool = UpstreamPool(idle_seconds=0.1)
    await ask(pool, upstream)
    assert pool.open == 1
    await until(lambda: pool.open == 0)


async def test_a_large_answer_passes_a_tunnel_whole(proxy: Proxy, secure: Upstream, authority: Authority) -> None:
    body = b'{"x":"' + b"y" * 900_000 + b'"}'
    secure.script = says(plain(body))
    pool = pool_of(proxies=await through(proxy, secure), trust=Trust(str(authority.file)))
    assert (await ask(pool, secure)).body == body
    await pool.close()


# All of it, from the edge's settings and the environment.


async def test_an_edge_behind_a_proxy_forwards_and_calls_a_refused_tunnel_void(
    start_edge: Start, proxy: Proxy, upstream: Upstream, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    await upstream.stop()
    upstream.host, upstream.tls, upstream.port = NAME, authority.server(NAME), 0
    await upstream.start()
    monkeypatch.setenv("https_proxy", (await through(proxy, upstream))["https"])
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    upstream.script = says(stream(FIRST_TURN))
    async with start_edge(upstream_ca_file=str(authority.file), upstream_keep_alive_seconds=0.0) as edge:
        assert (await talk.ask(edge.port)).body == FIRST_TURN
        proxy.answer = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"
        answer = await talk.ask(edge.port)
        assert (answer.status, answer.header("retry-after")) == (503, b"2")
        first, second = await edge.usage(2)
    assert (first.outcome, second.kind, second.outcome) == ("ok", "void", "not_sent")
    assert len(upstream.requests) == 1
