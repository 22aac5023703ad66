"""The page's own files."""

from pathlib import Path

from aiohttp import web

from services.console.handlers.context import SETTINGS
from services.console.settings import Settings

WEB = Path(__file__).parent.parent / "web"


def folder(settings: Settings) -> Path:
    return Path(settings.web_dir) if settings.web_dir else WEB


async def index(request: web.Request) -> web.StreamResponse:
    page = folder(request.app[SETTINGS]) / "index.html"
    if not page.is_file():
        raise web.HTTPNotFound
    return web.FileResponse(page)


async def static(request: web.Request) -> web.StreamResponse:
    """A file of the folder, never one above it."""
    root = folder(request.app[SETTINGS]).resolve()
    try:
        found = (root / request.match_info["name"]).resolve()
        there = found.is_relative_to(root) and found.is_file()
    except (OSError, ValueError):  # no name that a file can have: too long, or with a NUL
        there = False
    if not there:
        raise web.HTTPNotFound
    return web.FileResponse(found)
