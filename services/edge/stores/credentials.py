"""Provider secrets, resolved from references; they are sent upstream and never shown."""

import os
from collections.abc import Mapping
from pathlib import Path

from services.edge.core.headers import Header
from shared.errors import Rejected

BEARER = ("Bearer ", "sk-ant-oat")


class Unresolved(Rejected):
    """The reference leads nowhere; an administrator can mend it. Its text is the reference, never a secret."""

    def __init__(self, ref: str) -> None:
        super().__init__("credential_missing", ref, status=503)


class Credentials:
    """Resolves `env:NAME` and `file:/path`; a file is read again when it has changed."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ
        self._files: dict[str, tuple[tuple[int, int, int], str]] = {}

    def header(self, kind: str, ref: str) -> Header:
        """The header that a provider of this kind wants. Raises Unresolved."""
        secret = self._secret(ref)
        if kind != "anthropic":
            raise Unresolved(f"provider kind {kind}")
        if secret.startswith(BEARER):
            return b"authorization", b"Bearer " + secret.removeprefix("Bearer ").strip().encode()
        return b"x-api-key", secret.encode()

    def _secret(self, ref: str) -> str:
        scheme, _, where = ref.partition(":")
        secret = ""
        if scheme == "env":
            secret = self._environ.get(where, "").strip()
        elif scheme == "file":
            secret = self._read(where)
        if not secret or not secret.isprintable() or not secret.isascii():
            raise Unresolved(ref)  # a line break in it would smuggle a header
        return secret

    def _read(self, path: str) -> str:
        """A stat for each request is a microsecond or two, and a rotated secret counts at once."""
        try:
            found = Path(path).stat()
            stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
            known = self._files.get(path)
            if known is None or known[0] != stamp:
                known = (stamp, Path(path).read_text().strip())
                self._files[path] = known
        except (OSError, UnicodeDecodeError):
            return ""
        return known[1]
