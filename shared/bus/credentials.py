"""Who we are, as NATS' own keys say it. What signs is imported where a key is used: few need it, and it takes memory.

The seed of an NKey is base32 of: two bytes that say it is a seed and of what, the 32 bytes of an Ed25519 key, and their CRC. The
public key is written alike. Source: https://docs.nats.io/running-a-nats-service/configuration/securing_nats/auth_intro/nkey_auth
"""

import base64
import binascii
import re
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from nacl.signing import SigningKey

log = structlog.get_logger()

_SEED_OF_A_USER = bytes((18 << 3 | 20 >> 2, (20 & 3) << 6))
_SEED_BITS = bytes((0xFF, 0xF8))  # of these two bytes; the rest is unused
_USER = bytes((20 << 3,))
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
        return _signed(self._seed, nonce)

    def jwt(self) -> bytes:
        return self._jwt

    def _read(self) -> tuple[bytes, bytes]:
        found = _PARTS.search(self._file.read_bytes() + b"\n")
        if not found:
            raise ValueError(f"{self._file} does not hold a JWT and a seed")
        _key(found[2])
        return found[1], found[2]


class NKey:
    """A user that the broker knows by its public key. OSError or ValueError where the file holds no seed of one."""

    def __init__(self, file: str) -> None:
        self._seed = Path(file).read_bytes().strip()
        try:
            public = _USER + bytes(_key(self._seed).verify_key)
        except ValueError:
            raise ValueError(f"{file} does not hold the seed of a user's NKey") from None
        self.public = base64.b32encode(public + _crc(public)).decode().rstrip("=")

    def sign(self, nonce: str) -> bytes:
        return _signed(self._seed, nonce)


def _signed(seed: bytes, nonce: str) -> bytes:
    return base64.b64encode(_key(seed).sign(nonce.encode()).signature)


def _key(seed: bytes) -> "SigningKey":
    """Raises ValueError where it is no seed of a user, and does not say what it is."""
    from nacl.signing import SigningKey  # noqa: PLC0415  # see above

    try:
        raw = base64.b32decode(seed + b"=" * (-len(seed) % 8))
    except binascii.Error:
        raw = b""
    kind = bytes(byte & bits for byte, bits in zip(raw, _SEED_BITS, strict=False))
    if len(raw) != 36 or kind != _SEED_OF_A_USER or _crc(raw[:-2]) != raw[-2:]:
        raise ValueError("there is no seed of a user's NKey")
    return SigningKey(raw[2:-2])


def _crc(data: bytes) -> bytes:
    return binascii.crc_hqx(data, 0).to_bytes(2, "little")
