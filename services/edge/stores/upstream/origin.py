"""Where a provider listens."""

from urllib.parse import urlsplit

import msgspec

USUAL = {"http": 80, "https": 443}


class Origin(msgspec.Struct, frozen=True):
    """prefix: the path of the provider's base URL, put before every request path; no trailing slash."""

    scheme: str
    host: str
    port: int
    prefix: bytes

    @property
    def authority(self) -> bytes:
        """The Host header: the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host.encode() if self.port == USUAL[self.scheme] else f"{host}:{self.port}".encode()


def origin_of(base_url: str) -> Origin:
    """Raises ValueError when it is no http or https URL."""
    url = urlsplit(base_url)
    if url.scheme not in USUAL or not url.hostname:
        raise ValueError(f"{base_url} is no http or https URL")
    port = url.port or USUAL[url.scheme]
    return Origin(scheme=url.scheme, host=url.hostname, port=port, prefix=url.path.rstrip("/").encode())
