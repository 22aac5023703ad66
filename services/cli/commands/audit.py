"""`sluicegate audit`"""

import asyncio

import click
import msgspec
from rich.console import Console

from services.audit.core.chain import Broken, Verified
from services.audit.verify import verify_stream
from services.cli import options, output
from services.cli.api import Target
from services.cli.broker import Broker, named, unreadable
from services.cli.output import Column, words
from shared import logs
from shared.bus import BusSettings, open_bus
from shared.errors import Unavailable

COLUMNS = (Column("", "name"), Column("", "value", words))


@click.group("audit")
def command() -> None:
    """The tamper-evident record."""


@command.command("verify")
@named
@click.option("--chain", default="0", show_default=True, help="One per audit process; it holds every shard.")
@click.option(
    "--head", default="", help="The last page's digest as an earlier check told it: shows an end that was cut off."
)
@options.as_json
@options.targeted
def verify(broker: Broker, chain: str, head: str, as_json: bool, target: Target) -> None:
    """Check the chain from its first page to its last. Needs the broker alone. Exit code 1 when it is broken."""
    logs.configure("error")
    settings = broker.settings(target)
    with Console(stderr=True).status("reading the chain"):
        found = asyncio.run(_verify(settings, chain, digest_of(head)))
    shown = {
        name: value.hex() if isinstance(value, bytes) else value
        for name, value in msgspec.structs.asdict(found).items()
    }
    good = isinstance(found, Verified)
    if as_json:
        output.show_json({"intact": good} | shown)
    else:
        print("the chain is intact" if good else "THE CHAIN IS BROKEN")
        rows = [{"name": name.replace("_", " "), "value": value} for name, value in shown.items()]
        output.show(rows, COLUMNS, as_json=False)
    raise SystemExit(0 if good else 1)


async def _verify(settings: BusSettings, chain: str, head: bytes) -> Verified | Broken:
    try:
        async with open_bus(settings, "audit verify") as bus:
            return await verify_stream(bus, chain, head)
    except Unavailable as error:
        raise unreadable(settings, error) from None


def digest_of(text: str) -> bytes:
    """Raises BadParameter. Empty: none."""
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b"?"
    if len(found) not in (0, 32):
        raise click.BadParameter("--head is a SHA-256: 64 hexadecimal digits")
    return found
