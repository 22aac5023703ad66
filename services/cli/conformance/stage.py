"""Where a run takes place: a gateway with our provider behind it, a private one of our own, and the real client."""

import asyncio
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import click
import msgspec

from services.cli.api import Api
from services.cli.conformance import own
from services.cli.conformance.books import Books
from services.cli.conformance.claude import Claude, namespace
from services.cli.conformance.conversation import conversation
from services.cli.conformance.gateway import Gateway, message
from services.cli.conformance.provider import Upstream, message_json, plain, says
from services.cli.conformance.results import Report
from services.cli.conformance.run import run
from services.cli.conformance.scene import HEARTBEAT_SECONDS, Facts, Keys, Scene
from services.cli.errors import Trouble

POLL_SECONDS = 1.0


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """The options."""

    own: bool
    base_url: str
    key: str
    spent_key: str
    warned_key: str
    revoked_key: str
    limited_key: str
    policy_key: str
    storm_key: str
    denied_model: str
    allowed_model: str
    storm_requests: int
    upstream_host: str
    upstream_port: int
    no_upstream: bool
    wait_seconds: float
    console_url: str
    admin_token: str
    mcp_url: str
    logs: tuple[Path, ...]
    snippet: Path | None
    claude: tuple[Path, ...]
    slow: bool


async def report(asked: Asked, only: list[int]) -> Report:
    """Set everything up, look, and take it down again. Raises Trouble."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="conformance-")))
        scene = await (_own_scene if asked.own else _foreign_scene)(asked, stack, folder)
        await _bring_clients(scene, asked.claude)
        return await run(scene, only, progress=lambda text: click.echo(f"  {text}", err=True))


async def _provider(asked: Asked, stack: AsyncExitStack) -> Upstream:
    found = Upstream(asked.upstream_host, asked.upstream_port)
    try:
        await found.start()
    except OSError as error:
        raise Trouble(f"nothing can listen on {found.url}: {error.strerror}") from None
    stack.push_async_callback(found.stop)
    return found


async def _own_scene(asked: Asked, stack: AsyncExitStack, folder: Path) -> Scene:
    provider = await _provider(asked, stack)
    click.echo("starting a private Sluicegate", err=True)
    beat = HEARTBEAT_SECONDS if asked.slow else own.HEARTBEAT_SECONDS
    gateway, facts, books = await stack.enter_async_context(own.gateway(folder, provider, beat))
    facts = msgspec.structs.replace(facts, patient=asked.slow, mcp_url=asked.mcp_url)
    simulator = await stack.enter_async_context(conversation(folder / "bill"))
    return Scene(gateway, facts, provider, books, simulator)


async def _foreign_scene(asked: Asked, stack: AsyncExitStack, folder: Path) -> Scene:
    gateway = Gateway(asked.base_url)
    names = {name: getattr(asked, f"{name}_key") for name in Keys.__struct_fields__ if name != "main"}
    facts = Facts(
        keys=Keys(main=asked.key, **names),
        denied_model=asked.denied_model,
        allowed_model=asked.allowed_model,
        storm_requests=asked.storm_requests,
        patient=asked.slow,
        logs=asked.logs,
        snippet=asked.snippet.read_text() if asked.snippet else "",
        mcp_url=asked.mcp_url,
    )
    books = Books(Api(asked.console_url.rstrip("/"), asked.admin_token)) if asked.console_url else None
    if asked.no_upstream:
        return Scene(gateway, facts, None, books)
    provider = await _provider(asked, stack)
    await _until_reached(gateway, asked, provider)
    simulator = await stack.enter_async_context(conversation(folder / "bill"))
    return Scene(gateway, facts, provider, books, simulator)


async def _until_reached(gateway: Gateway, asked: Asked, provider: Upstream) -> None:
    """Return when a request through the gateway has come to our provider."""
    click.echo(f"point your gateway's provider at {provider.url} (format: Anthropic Messages, any key)", err=True)
    provider.script = says(plain(message_json()))
    last, loop = "", asyncio.get_running_loop()
    deadline = loop.time() + asked.wait_seconds
    while not provider.requests:
        if loop.time() > deadline:
            raise Trouble(f"no request through {gateway.base_url} has reached {provider.url}; the last answer: {last}")
        try:
            answer = await gateway.post(asked.key, message("does this reach the provider?"))
            last = f"{answer.status} {answer.body[:200].decode(errors='replace')}"
            if answer.status == 401:
                raise Trouble(f"the gateway does not accept --key: {last}")
        except (OSError, TimeoutError) as error:
            last = str(error) or type(error).__name__
        await asyncio.sleep(POLL_SECONDS if not provider.requests else 0)
    click.echo("reached", err=True)


async def _bring_clients(scene: Scene, binaries: tuple[Path, ...]) -> None:
    if not binaries:
        return
    try:
        apart = await namespace()
    except Trouble as reason:
        scene.no_client = reason.message
        return
    clients = [Claude(binary.resolve(), scene.gateway, apart) for binary in binaries]
    for client in clients:
        await client.introduce()
    scene.clients = tuple(clients)
