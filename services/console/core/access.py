"""Who may do what, and the signed cookie of a session."""

import base64
import hashlib
import hmac
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from shared.contracts.message import Micros

Role = Literal["viewer", "auditor", "team-admin", "admin"]
Need = Literal["public", "read", "write", "key"]
"""What a route asks for: nothing, a reader, an administrator, or the holder of a virtual key."""

COOKIE = "sluicegate_session"
READERS: tuple[Role, ...] = ("viewer", "auditor", "team-admin", "admin")
WRITERS: tuple[Role, ...] = ("admin",)
# Today there is one sign-in, the admin token; the other roles come with the full console and its users.


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks. expires_at: of a session, 0 for a bearer token."""

    role: Role
    actor: str
    expires_at: Micros = 0


def allowed(caller: Caller, need: Need) -> bool:
    return caller.role in (READERS if need == "read" else WRITERS)


def same_token(given: str, token: str) -> bool:
    """In constant time; an empty token opens nothing."""
    return bool(token) and hmac.compare_digest(given.encode(errors="surrogateescape"), token.encode())


def session_key(admin_token: str) -> bytes:
    """Signs sessions. Made from the token, so that sessions outlive a restart and end when the token changes."""
    return hmac.digest(admin_token.encode(), b"sluicegate console session 1", hashlib.sha256)


def sealed(caller: Caller, key: bytes) -> str:
    """The value of the cookie."""
    body = base64.urlsafe_b64encode(msgspec.json.encode(caller))
    return f"{body.decode()}.{_signature(body, key)}"


def opened(cookie: str, key: bytes, now: Micros) -> Caller | None:
    """None for anything that we did not seal, or that is over."""
    body, _, signature = cookie.partition(".")
    if not same_token(signature, _signature(body.encode(errors="surrogateescape"), key)):
        return None
    caller = msgspec.json.decode(base64.urlsafe_b64decode(body), type=Caller)
    return caller if caller.expires_at > now else None


def _signature(body: bytes, key: bytes) -> str:
    return base64.urlsafe_b64encode(hmac.digest(key, body, hashlib.sha256)).decode()


def same_origin(host: str, origin: str, fetch_site: str) -> bool:
    """Whether a write comes from our own page. Browsers set both headers and scripts cannot forge them."""
    if fetch_site:
        return fetch_site == "same-origin"
    return bool(origin) and _netloc(origin) == host


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""
