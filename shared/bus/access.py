"""What stands in files about the way to the broker: whom to trust, and who we are."""

import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog

from shared.bus.credentials import Credentials, NKey
from shared.bus.settings import BusSettings
from shared.file_stamp import Stamp, stamp
from shared.settings import SettingsError
from shared.trust import verifying

log = structlog.get_logger()

T = TypeVar("T")
FILES = ("tls_ca_file", "tls_cert_file", "tls_key_file", "credentials_file", "nkey_seed_file")


class Trust:
    """TLS for the next connection. Files that change are read again; what cannot be read leaves what was read before."""

    def __init__(self, ca_file: str, cert_file: str, key_file: str) -> None:
        self._named = ca_file, cert_file, key_file
        self._files = [name for name in (*self._named, ssl.get_default_verify_paths().cafile) if name]
        self._stamp: Stamp = stamp(self._files)
        self._context = verifying(*self._named)

    def context(self) -> ssl.SSLContext:
        if (found := stamp(self._files)) != self._stamp:
            self._stamp = found
            try:
                self._context = verifying(*self._named)
            except OSError as error:
                log.error("bus.trust_not_reloaded", reason=str(error))
            else:
                log.info("bus.trust_reloaded")
        return self._context


class Access:
    """All files that the settings name, read. Raises SettingsError, which names the variable without the service's prefix."""

    def __init__(self, settings: BusSettings) -> None:
        self.settings = settings
        for name in FILES:
            if path := getattr(settings, name):
                _named(name, Path(path).read_bytes)
        ca, pair = settings.tls_ca_file, (settings.tls_cert_file, settings.tls_key_file)
        if ca:
            _named("tls_ca_file", partial(verifying, ca))
        self.trust = _named("tls_cert_file", partial(Trust, ca, *pair)) if settings.secure else None
        file, seed = settings.credentials_file, settings.nkey_seed_file
        self.credentials = _named("credentials_file", partial(Credentials, file)) if file else None
        self.nkey = _named("nkey_seed_file", partial(NKey, seed)) if seed else None


def _named(field: str, read: Callable[[], T]) -> T:
    try:
        return read()
    except (OSError, ValueError) as error:
        raise SettingsError(f"BUS_{field.upper()}: {error}") from None
