"""Where the broker is, whom to trust there and who to be."""

from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec

PLAIN, WEBSOCKET = {"nats", "tls"}, {"ws", "wss"}
SECURE = {"tls", "wss"}


class Identity(NamedTuple):
    """What the broker is told in words; all empty where a file says it, or nobody need say anything."""

    user: str = ""
    password: str = ""
    token: str = ""


class BusSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What contradicts itself is a ValueError that names the variable, without the service's prefix.

    url: nats://, tls://, ws:// or wss://HOST:PORT, several with commas between them: any of them will do. A user in one, in
        percent-encoding, is the same for all, and so is tls://.
    prefix: before every subject, stream and bucket.
    monitor_url: the broker's, "" leaves its sync mode unchecked.
    tls_ca_file: PEM; trusted for the broker beside the system's store (or SSL_CERT_FILE). With it there is TLS or no connection.
    tls_cert_file, tls_key_file: PEM, the certificate with its chain that we show to the broker, and its key.
    credentials_file: `.creds`, the JWT of a user and the seed of its NKey. This and tls_*_file are read anew when they change.
    nkey_seed_file: the seed of a user that the broker knows by its public key.
    """

    url: str = "nats://127.0.0.1:4222"
    prefix: str = ""
    user: str = ""
    password: str = ""
    credentials_file: str = ""
    nkey_seed_file: str = ""
    tls_ca_file: str = ""
    tls_cert_file: str = ""
    tls_key_file: str = ""
    monitor_url: str = ""
    connect_timeout_seconds: float = 5.0
    request_timeout_seconds: float = 2.0

    def __post_init__(self) -> None:
        schemes = {each.scheme for each in _split(self.url)}
        if not (schemes <= PLAIN or schemes <= WEBSOCKET):
            raise ValueError("BUS_URL: ws:// and nats:// do not go together")
        if self.secure and "ws" in schemes:
            raise ValueError("BUS_URL: ws:// has no TLS, and the other settings want it: say wss://")
        if bool(self.tls_cert_file) != bool(self.tls_key_file):
            raise ValueError("BUS_TLS_CERT_FILE and BUS_TLS_KEY_FILE: one needs the other")
        if bool(self.user) != bool(self.password):
            raise ValueError("BUS_USER and BUS_PASSWORD: one needs the other")
        ways = {
            "BUS_USER": bool(self.user),
            "the user in BUS_URL": any(_identity_in_url(self.url)) and not self.user,
            "BUS_CREDENTIALS_FILE": bool(self.credentials_file),
            "BUS_NKEY_SEED_FILE": bool(self.nkey_seed_file),
        }
        if len(given := [way for way, used in ways.items() if used]) > 1:
            raise ValueError(f"{' and '.join(given)}: only one of them can say who we are")

    @property
    def servers(self) -> list[str]:
        """Without a user: fit to be shown, and for all of a cluster, whose other servers tell us no user."""
        return [f"{each.scheme}://{each.netloc.rpartition('@')[2]}{each.path}" for each in _split(self.url)]

    @property
    def shown(self) -> str:
        """The url without secrets."""
        return ",".join(self.servers)

    @property
    def secure(self) -> bool:
        """Nothing is said without TLS."""
        named = any(each.scheme in SECURE for each in _split(self.url))
        return named or bool(self.tls_ca_file or self.tls_cert_file)

    @property
    def identity(self) -> Identity:
        return Identity(self.user, self.password) if self.user else _identity_in_url(self.url)


def _split(url: str) -> list[SplitResult]:
    found = []
    for number, each in enumerate(url.split(","), start=1):
        server = each.strip()
        try:
            split = urlsplit(server if "://" in server else f"nats://{server}")
            good = split.hostname and split.scheme in PLAIN | WEBSOCKET and split.port != 0
        except ValueError:  # a port that is none; it is not told, for a password may stand there
            good = False
        if not good:
            raise ValueError(f"BUS_URL: server {number} is no nats://HOST:PORT or tls://HOST:PORT")
        found.append(split)
    return found


def _identity_in_url(url: str) -> Identity:
    """One name alone is a token, as NATS has it."""
    found = {_identity(each) for each in _split(url) if each.username}
    if len(found) > 1:
        raise ValueError("BUS_URL: its servers have different users")
    return found.pop() if found else Identity()


def _identity(server: SplitResult) -> Identity:
    name = unquote(server.username or "")
    if server.password is None:
        return Identity(token=name)
    return Identity(name, unquote(server.password))
