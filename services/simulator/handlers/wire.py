"""What every answer shares: its id, its headers, the caller's credential, and ways to end a connection badly."""

import asyncio
import secrets
import socket
import struct
from collections.abc import Mapping

from aiohttp import web

from services.simulator.core.errors import Refusal

LARGEST_BODY = 32 * 1024 * 1024
ORGANISATION = "5f6e0000-0000-4000-8000-00000000051d"
RESET = struct.pack("ii", 1, 0)  # linger for no time: close() sends RST instead of FIN
ARRIVAL_SECONDS = 0.02  # what was written is given this long to be read, else the reset would overtake it
LOOK_SECONDS = 0.05  # how often a silent answer looks whether its client is still there

STOPPING = web.AppKey("stopping", asyncio.Event)
"""Set when the server is told to end: answers in flight break off, as a provider's do."""


class TooLarge(Exception):
    """The body passes the provider's limit."""


def new_request_id() -> str:
    """Like the provider's: `req_` and 24 characters."""
    return f"req_{secrets.token_hex(12)}"


def headers(request_id: str) -> dict[str, str]:
    """On every answer. The rate headers describe the provider's key, which a gateway must not show its clients."""
    return {
        "request-id": request_id,
        "anthropic-organization-id": ORGANISATION,
        "anthropic-ratelimit-requests-limit": "4000",
        "anthropic-ratelimit-requests-remaining": "3999",
    }


def credential(given: Mapping[str, str]) -> str:
    """The caller's key from either header; "" when there is none."""
    if key := given.get("x-api-key", "").strip():
        return key
    scheme, _, token = given.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


async def body(request: web.Request) -> bytes:
    """The whole body. Raises TooLarge, and leaves the rest unread."""
    if (request.content_length or 0) > LARGEST_BODY:
        raise TooLarge
    parts, size = list[bytes](), 0
    async for part in request.content.iter_any():
        size += len(part)
        if size > LARGEST_BODY:
            raise TooLarge
        parts.append(part)
    return b"".join(parts)


def refused(refusal: Refusal, request_id: str) -> web.Response:
    """An error answer."""
    return web.Response(status=refusal.status, body=refusal.body, headers=headers(request_id) | refusal.headers)


def gone(request: web.Request) -> bool:
    """Whether the client has hung up."""
    return request.transport is None or request.transport.is_closing()


async def silence(request: web.Request, wait_ms: int) -> bool:
    """Wait; False as soon as the client hangs up or the server is stopped meanwhile."""
    loop = asyncio.get_running_loop()
    until = loop.time() + wait_ms / 1_000
    while (left := until - loop.time()) > 0:
        if _over(request):
            return False
        await asyncio.sleep(min(left, LOOK_SECONDS))
    return not _over(request)


def _over(request: web.Request) -> bool:
    return gone(request) or request.app[STOPPING].is_set()


async def reset(request: web.Request) -> None:
    """Break the TCP connection."""
    await asyncio.sleep(ARRIVAL_SECONDS)
    transport = request.transport
    if transport is None:
        return
    connection = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    transport.abort()
