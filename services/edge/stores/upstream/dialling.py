"""From an origin to a connection: name, address, proxy, TLS, all within one time limit."""

import asyncio
import socket
import ssl
from contextlib import ExitStack

import structlog
from aiohappyeyeballs import start_connection

from services.edge.stores.upstream.addresses import Addresses, Place
from services.edge.stores.upstream.connection import UpstreamConnection, Via
from services.edge.stores.upstream.origin import Origin
from services.edge.stores.upstream.proxies import Proxies, Proxy
from services.edge.stores.upstream.trust import Trust
from services.edge.stores.upstream.tunnel import Tunnel
from shared.errors import Unavailable

log = structlog.get_logger()

NEXT_ADDRESS_SECONDS = 0.25
"""Of happy eyeballs (RFC 8305): when the next address is tried beside one that has not answered."""
KEEP_ALIVE_SECONDS = 60
"""A model may think for many minutes without a byte; what stands between forgets silent connections after about five."""


class Dialler:
    """connect_seconds: from the name to a connection that can carry a request."""

    def __init__(
        self,
        addresses: Addresses | None = None,
        proxies: Proxies | None = None,
        trust: Trust | None = None,
        connect_seconds: float = 10.0,
    ) -> None:
        self.addresses = addresses or Addresses()
        self._proxies = proxies or Proxies({})
        self._trust = trust or Trust()
        self._connect_seconds = connect_seconds

    async def dial(self, origin: Origin, connection: UpstreamConnection) -> None:
        """Connect it. Raises Unavailable(host), and leaves nothing open then."""
        proxy = self._proxies.of(origin)
        call = _Call(origin, proxy, connection)
        try:
            async with asyncio.timeout(self._connect_seconds):
                await self._dial(call)
        except OSError as error:  # as ssl.SSLError and TimeoutError are
            log.warning(
                "edge.upstream_unreachable",
                host=origin.host,
                port=origin.port,
                proxy=proxy.name if proxy else "",
                stage=call.stage,
                reason=_reason(error, self._connect_seconds),
            )
            raise Unavailable(origin.host) from error

    async def _dial(self, call: "_Call") -> None:
        place = call.place
        infos = await self.addresses.of(place)
        call.stage = "connect"
        sock = await start_connection(infos, happy_eyeballs_delay=NEXT_ADDRESS_SECONDS)
        with ExitStack() as undo:
            undo.callback(sock.close)  # the loop's transport, where there is one, has its own hold on it
            _tune(sock)
            call.connection.place, call.connection.address = place, str(sock.getpeername()[0])
            await self._speak(call, sock)
            undo.pop_all()

    async def _speak(self, call: "_Call", sock: socket.socket) -> None:
        loop, origin, proxy, connection = asyncio.get_running_loop(), call.origin, call.proxy, call.connection
        secure = origin.scheme == "https"
        trust = await self._trust.context() if secure or (proxy and proxy.scheme == "https") else None
        if proxy is None:
            call.stage = "tls" if secure else "connect"
            await loop.create_connection(
                lambda: connection, sock=sock, ssl=trust, server_hostname=origin.host if secure else None
            )
            return
        call.stage = "proxy"
        to_proxy = trust if proxy.scheme == "https" else None
        name = proxy.host if to_proxy else None
        if not secure:
            connection.via = Via(before=b"http://" + origin.authority, authorization=proxy.authorization)
            await loop.create_connection(lambda: connection, sock=sock, ssl=to_proxy, server_hostname=name)
            return
        transport, tunnel = await loop.create_connection(Tunnel, sock=sock, ssl=to_proxy, server_hostname=name)
        with ExitStack() as undo:
            undo.callback(transport.abort)
            await tunnel.ask(origin, proxy)
            call.stage = "tls"
            assert trust is not None
            through = await loop.start_tls(transport, connection, trust, server_hostname=origin.host)
            if through is None or through.is_closing():
                raise OSError("closed")
            connection.connection_made(through)
            undo.pop_all()


class _Call:
    """One dialling; stage: how far it has come, for the log."""

    def __init__(self, origin: Origin, proxy: Proxy | None, connection: UpstreamConnection) -> None:
        self.origin = origin
        self.proxy = proxy
        self.connection = connection
        self.stage = "name"

    @property
    def place(self) -> Place:
        return (self.proxy.host, self.proxy.port) if self.proxy else (self.origin.host, self.origin.port)


def _tune(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):  # not everywhere
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEP_ALIVE_SECONDS)


def _reason(error: OSError, seconds: float) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return f"no answer within {seconds:g} s"
    return str(error) or repr(error)
