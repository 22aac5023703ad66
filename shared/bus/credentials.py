"""Who we are, as NATS' own keys say it. nkeys is imported where one is used: few need it, and it takes memory."""

import base64
import re
from collections.abc import Callable
from pathlib import Path

import structlog

log = structlog.get_logger()

_PARTS = re.compile(rb"BEGIN NATS USER JWT-+\s+(\S+)\s.*BEGIN USER NKEY SEED-+\s+(\S+)\s", re.DOTALL)


class Credentials:
    """A `.creds` file, read for each connection: a JWT may come to its end, and somebody writes another before.

    What nats-py has for it turns for ever on a file without a JWT, and stops to reconnect at a bad seed.
    """

    def __init__(self, file: str) -> None:
        self._file = Path(file)
        self._jwt, self._seed = self._read()

    def sign(self, nonce: str) -> bytes:
        """Asked for first, at each connection."""
        try:
            self._jwt, self._seed = self._read()
        except (OSError, ValueError) as error:
            log.error("bus.credentials_not_reloaded", reason=str(error))
        return base64.b64encode(_signer(self._seed)(nonce.encode()))

    def jwt(self) -> bytes:
        return self._jwt

    def _read(self) -> tuple[bytes, bytes]:
        found = _PARTS.search(self._file.read_bytes() + b"\n")
        if not found:
            raise ValueError(f"{self._file} does not hold a JWT and a seed")
        _signer(found[2])
        return found[1], found[2]


def seed_in(file: str) -> str:
    """An NKey's seed; OSError or ValueError where there is none."""
    seed = Path(file).read_bytes().strip()
    try:
        _signer(seed)
    except ValueError:
        raise ValueError(f"{file} does not hold the seed of a user's NKey") from None
    return seed.decode()


def _signer(seed: bytes) -> Callable[[bytes], bytes]:
    """Raises ValueError where it is no seed of a user, and does not say what it is."""
    import nkeys  # noqa: PLC0415  # see above

    try:
        if not seed.startswith(b"SU"):
            raise ValueError
        sign: Callable[[bytes], bytes] = nkeys.from_seed(bytearray(seed)).sign
    except (nkeys.NkeysError, ValueError):
        raise ValueError("there is no seed of a user's NKey") from None
    return sign
