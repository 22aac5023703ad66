"""nats-py's client, which takes the broker's word for whether there is TLS, and for when to give up; ours takes neither."""

import ssl
from typing import Any

import nats.aio.client
import nats.errors
from nats.aio.client import Srv
from nats.aio.transport import TcpTransport
from nats.protocol.parser import PERMISSIONS_ERR

from shared.bus.access import Access
from shared.bus.settings import PLAIN


class Client(nats.aio.client.Client):
    """Reads certificates and credentials anew for each connection, where their files have changed."""

    def __init__(self, access: Access) -> None:
        super().__init__()
        self.access = access
        if access.nkey:  # with a seed nats-py would want one more package to read it
            self._auth_configured, self._public_nkey = True, access.nkey.public

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """A broker may want TLS where we do not insist on it: then the system's store alone counts."""
        return self.access.trust.context() if self.access.trust else super().ssl_context

    async def _connect_to_server(self, s: Srv) -> None:
        """A connection that came to nothing, as with a wrong key, is left open by nats-py when the next one is tried."""
        if isinstance(self._transport, TcpTransport):
            self._transport.close()  # type: ignore[no-untyped-call]  # nats-py says not what it takes: nothing
        await super()._connect_to_server(s)

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        """The first word of a broker, before we say who we are. `tls_available`: it leaves the choice to us."""
        scheme = self._current_server.uri.scheme if self._current_server else ""
        if initial_connection and self.access.trust and scheme in PLAIN:
            if not (info.get("tls_required") or info.get("tls_available")):
                raise nats.errors.Error("the broker does not speak TLS, and the settings want it")
            info["tls_required"] = True
        await super()._process_info(info, initial_connection)

    async def _process_err(self, err_msg: str) -> None:
        """What a broker says before it ends a connection, as that our JWT came to its end: nats-py would stay away for good."""
        if not self.is_connected or PERMISSIONS_ERR in err_msg:  # the broker stays, or nats-py tries again anyway
            return await super()._process_err(err_msg)
        error = nats.errors.Error(f"nats: {err_msg}")
        await self._error_cb(error)
        return await self._process_op_err(error)
