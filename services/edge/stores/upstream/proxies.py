"""Which proxy leads to a provider, as HTTPS_PROXY, HTTP_PROXY and NO_PROXY say."""

import base64
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from urllib.parse import unquote, urlsplit

import msgspec

from services.edge.stores.upstream.origin import USUAL, Origin
from shared.settings import SettingsError


class Proxy(msgspec.Struct, frozen=True):
    """scheme: how the proxy itself is spoken to. authorization: `Basic …` or empty; a secret, never logged."""

    scheme: str
    host: str
    port: int
    authorization: bytes

    @property
    def name(self) -> str:
        """For logs."""
        return f"{self.host}:{self.port}"


class Proxies:
    """environ: as `urllib.request.getproxies_environment()` gives it: scheme to URL, and `no` to the exceptions.

    Raises SettingsError where a proxy is of a kind that is not spoken here: to go around it would be worse.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._by_scheme = {scheme: _proxy(scheme, environ[scheme]) for scheme in USUAL if environ.get(scheme)}
        self._networks: list[IPv4Network | IPv6Network] = []
        self._names: list[tuple[str, str]] = []  # and a port, where only that is meant
        for entry in filter(None, (entry.strip().lower() for entry in environ.get("no", "").split(","))):
            try:
                self._networks.append(ip_network(entry, strict=False))
            except ValueError:
                name, _, port = entry.partition(":")
                self._names.append((name.removeprefix("*").removeprefix("."), port))

    def of(self, origin: Origin) -> Proxy | None:
        """None: straight to the provider. This machine's own addresses are never behind a proxy."""
        proxy, host = self._by_scheme.get(origin.scheme), origin.host.lower()
        if proxy is None or host == "localhost" or self._is_near(host):
            return None
        for name, port in self._names:  # an empty name was "*"
            if port in ("", str(origin.port)) and (not name or host == name or host.endswith(f".{name}")):
                return None
        return proxy

    def _is_near(self, host: str) -> bool:
        try:
            address = ip_address(host)
        except ValueError:
            return False
        return address.is_loopback or any(address in network for network in self._networks)


def _proxy(scheme: str, url: str) -> Proxy:
    variable = f"{scheme.upper()}_PROXY"
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in USUAL or not parts.hostname:
        raise SettingsError(f"{variable} is no http or https URL")  # the URL may hold a password: it is not shown
    try:
        port = parts.port or USUAL[parts.scheme]
    except ValueError:
        raise SettingsError(f"{variable}: its port is none") from None
    authorization = b""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = b"Basic " + base64.b64encode(pair.encode())
    return Proxy(scheme=parts.scheme, host=parts.hostname, port=port, authorization=authorization)
