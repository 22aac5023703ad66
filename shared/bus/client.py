"""nats-py's client takes the broker's word for whether there is TLS; ours leaves rather than tell a secret in the open."""

import ssl
from typing import Any

import nats.aio.client
import nats.errors

from shared.bus.access import Access
from shared.bus.settings import PLAIN


class Client(nats.aio.client.Client):
    """Reads certificates and credentials anew for each connection, where their files have changed."""

    def __init__(self, access: Access) -> None:
        super().__init__()
        self.access = access

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """A broker may want TLS where we do not insist on it: then the system's store alone counts."""
        return self.access.trust.context() if self.access.trust else super().ssl_context

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        """The first word of a broker, before we say who we are. `tls_available`: it leaves the choice to us."""
        scheme = self._current_server.uri.scheme if self._current_server else ""
        if initial_connection and self.access.trust and scheme in PLAIN:
            if not (info.get("tls_required") or info.get("tls_available")):
                raise nats.errors.Error("the broker does not speak TLS, and the settings want it")
            info["tls_required"] = True
        await super()._process_info(info, initial_connection)
