"""In front of every route: who asks, may they, and what browsers are told."""

import hashlib

from aiohttp import web

from services.console import api
from services.console.core import access
from services.console.core.access import Caller, Need
from services.console.core.problem import Invalid
from services.console.handlers.context import ADMIN_TOKEN, CALLER, Handler, answer, directory, now
from shared.contracts.config import Key
from shared.errors import Rejected

KEY = web.RequestKey("key", Key)
READING = ("GET", "HEAD", "OPTIONS")

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def guarded(handler: Handler, need: Need) -> Handler:
    """The handler behind its need."""

    async def checked(request: web.Request) -> web.StreamResponse:
        if need == "key":
            request[KEY] = key_holder(request)
        elif need != "public":
            request[CALLER] = who = identify(request)
            if not access.allowed(who, need):
                raise Rejected("forbidden", f"the role {who.role} may not do this", 403)
        return await handler(request)

    return checked


def identify(request: web.Request) -> Caller:
    """By bearer token, else by the session's cookie. Raises Rejected 401 or 403."""
    token = request.app[ADMIN_TOKEN]
    if given := bearer(request):
        if access.same_token(given, token):
            return Caller(role="admin", actor="admin")
        raise Rejected("unauthenticated", "this is not the admin token", 401)
    cookie = request.cookies.get(access.COOKIE, "")
    who = access.opened(cookie, access.session_key(token), now(request)) if cookie else None
    if who is None:
        raise Rejected("unauthenticated", "sign in, or send the admin token as a bearer token", 401)
    if request.method not in READING and not from_own_page(request):
        raise Rejected("cross_site", "a write with a cookie must come from the console's own page", 403)
    return who


def from_own_page(request: web.Request) -> bool:
    headers = request.headers
    return access.same_origin(request.host, headers.get("Origin", ""), headers.get("Sec-Fetch-Site", ""))


def bearer(request: web.Request) -> str:
    kind, _, given = request.headers.get("Authorization", "").partition(" ")
    return given.strip() if kind.lower() == "bearer" else ""


def key_holder(request: web.Request) -> Key:
    """The virtual key whose secret was sent, as edges take it. Raises Rejected 401."""
    secret = bearer(request) or request.headers.get("x-api-key", "")
    found = (
        directory(request).key_of_secret(hashlib.sha256(secret.encode(errors="surrogateescape")).digest())
        if secret
        else None
    )
    at = now(request)
    if found is not None:
        key, part = found
        if not key.revoked_at and part.valid_from <= at and (not part.valid_until or part.valid_until > at):
            return key
    raise Rejected("unauthenticated", "send a virtual key that is good as a bearer token", 401)


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refusals that name a field, and aiohttp's own, in the API's envelope; the rest is the outer middleware's."""
    try:
        return await handler(request)
    except Invalid as error:
        return _problem(error.status, error.code, error.message, error.field)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        told = _problem(error.status, error.reason.lower().replace(" ", "_"), f"{request.path}: {error.reason}")
        if allow := error.headers.get("Allow"):
            told.headers["Allow"] = allow
        return told


def _problem(status: int, code: str, message: str, field: str = "") -> web.Response:
    return answer(api.ErrorAnswer(error=api.Problem(code=code, message=message, field=field)), status)


async def on_prepare(request: web.Request, response: web.StreamResponse) -> None:
    """Headers of every answer. Nothing of the API may be kept by a cache; the page's files are asked for anew."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("Cache-Control", "no-cache" if request.path.startswith("/static/") else "no-store")
    if response.status == 401:
        response.headers.setdefault("WWW-Authenticate", 'Bearer realm="sluicegate"')
