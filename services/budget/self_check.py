"""One check of the whole ledger in a process of its own: `python -m services.budget.self_check`, with the owner's settings.

Prints the checks as one JSON list and ends with 0 when they could be made, whatever they found; `handlers/auditor` reads it.
Not in the owner, since replaying a long ledger would keep every request waiting.
"""

import asyncio
import os
import sys
from contextlib import suppress

import msgspec

from services.budget.core.inspection import Check
from services.budget.settings import PREFIX, Settings
from services.budget.verify import ClickHouse, Rows, Table, Verifier
from shared import logs
from shared.bus import open_bus
from shared.errors import Unavailable
from shared.settings import load

NICE = 19


class Away:
    """A ClickHouse that could not be reached."""

    async def between(self, shard: str, log_id: str, after: int, to: int) -> Rows:
        raise Unavailable("analytics")


async def check(settings: Settings) -> bytes:
    """Raises Unavailable when the broker cannot be read. Rows that cannot be asked for are left out, and that is said."""
    async with open_bus(settings.bus, "budget self-check") as bus:
        table: Table | None = Away() if settings.clickhouse_url else None
        if settings.clickhouse_url:
            with suppress(Unavailable):
                table = await ClickHouse.at(
                    settings.clickhouse_url, settings.clickhouse_user, settings.clickhouse_password
                )
        checks: list[Check] = []
        for shard in settings.shards.split(","):
            checks += await Verifier(bus, shard, table, lambda done, total: None).run()
        return msgspec.json.encode(checks)


def main() -> int:
    os.nice(NICE)
    settings = load(Settings, PREFIX)
    logs.configure("error", "budget")
    try:
        found = asyncio.run(check(settings))
    except Unavailable as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.buffer.write(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
