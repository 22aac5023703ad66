"""Signing in to the page."""

from aiohttp import web

from services.console import api
from services.console.core import access
from services.console.core.access import Caller
from services.console.handlers.context import ADMIN_TOKEN, SETTINGS, answer, body, caller, now
from services.console.handlers.guard import from_own_page
from shared.clock import rfc3339
from shared.errors import Rejected


async def sign_in(request: web.Request) -> web.Response:
    asked = await body(request, api.SessionBody)
    if "Origin" in request.headers and not from_own_page(request):
        raise Rejected("cross_site", "sign in from the console's own page", 403)
    settings, token = request.app[SETTINGS], request.app[ADMIN_TOKEN]
    if not access.same_token(asked.token, token):
        raise Rejected("unauthenticated", "this is not the admin token", 401)
    seconds = settings.session_hours * 3600
    who = Caller(role="admin", actor="admin", expires_at=now(request) + seconds * 1_000_000)
    told = answer(_told(who), 201)
    told.set_cookie(
        access.COOKIE,
        access.sealed(who, access.session_key(token)),
        max_age=seconds,
        httponly=True,
        samesite="Strict",
        secure=settings.secure_cookies,
        path="/",
    )
    return told


async def who_am_i(request: web.Request) -> web.Response:
    return answer(_told(caller(request)))


async def sign_out(request: web.Request) -> web.Response:
    told = web.Response(status=204)
    told.del_cookie(access.COOKIE, path="/", httponly=True, samesite="Strict")
    return told


def _told(who: Caller) -> api.SessionAnswer:
    return api.SessionAnswer(role=who.role, actor=who.actor, expires_at=rfc3339(who.expires_at))
