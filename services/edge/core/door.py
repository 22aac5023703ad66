"""Who is it? The credential's hash is looked up in memory; there is no network on this path."""

import hashlib

import msgspec

from services.edge.core.headers import Index
from services.edge.core.refusals import Refusal
from shared.contracts.attribution import Principal
from shared.contracts.config import Key, Secret
from shared.directory import Directory

OAUTH_BETA = b"oauth-2025-04-20"


class Entered(msgspec.Struct, frozen=True, kw_only=True):
    """The key, and its path for what is not bound to a provider; `policy.plan` adds the provider config."""

    key: Key
    principal: Principal


def enter(headers: Index, directory: Directory, now: int) -> Entered | Refusal:
    """now: microseconds. Where both headers are given and differ, Authorization counts."""
    secret = _secret(headers)
    if not secret:
        return _unknown("No API key given: send a virtual key as Authorization: Bearer or x-api-key.")
    found = directory.key_of_secret(hashlib.sha256(secret).digest())
    if found is None:
        return _unknown(_not_ours(headers))
    key, validity = found
    if reason := _invalid(key, validity, now):
        return _unknown(reason)
    return Entered(key=key, principal=directory.principal(key))


def _not_ours(headers: Index) -> str:
    """A subscription login carries the user's own token, which is neither taken for a key nor passed on."""
    if OAUTH_BETA in headers.get(b"anthropic-beta", b""):
        return "This gateway does not accept Claude subscription logins: set ANTHROPIC_AUTH_TOKEN to a virtual key."
    return "Unknown API key."


def _invalid(key: Key, secret: Secret, now: int) -> str:
    """Why a known secret does not count now, empty when it does."""
    if key.revoked_at and key.revoked_at <= now:
        return f"Key '{key.id}' is revoked."
    if secret.valid_from > now:
        return f"This secret of key '{key.id}' is not valid yet."
    if secret.valid_until and secret.valid_until <= now:
        return f"This secret of key '{key.id}' has expired."
    return ""


def _secret(headers: Index) -> bytes:
    scheme, _, token = headers.get(b"authorization", b"").strip().partition(b" ")
    if scheme.lower() == b"bearer" and token.strip():
        return token.strip()
    return headers.get(b"x-api-key", b"").strip()


def _unknown(message: str) -> Refusal:
    return Refusal(reason="authentication", code="authentication_error", message=message)
