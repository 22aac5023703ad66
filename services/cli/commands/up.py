"""`sluicegate up`"""

import asyncio
import os
from pathlib import Path

import click

from services.cli.supervisor import up
from services.cli.supervisor.plan import Options

PORT = click.IntRange(0, 65_535)
COUNT = click.IntRange(1, 64)
FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command("up")
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    default=Path(".sluicegate"),
    show_default=True,
    envvar="SLUICEGATE_DATA_DIR",
    help="Everything that is kept, and ports.json while it runs.",
)
@click.option("--org", type=click.Path(path_type=Path), help="Organisation file, applied at every start.")
@click.option("--edge-port", type=PORT, default=8080, show_default=True, help="For Claude Code and SDKs.")
@click.option("--console-port", type=PORT, default=8081, show_default=True, help="The page and the admin API.")
@click.option("--clickhouse-port", type=PORT, default=8123, show_default=True, help="ClickHouse's HTTP protocol.")
@click.option("--nats-port", type=PORT, default=4222, show_default=True, help="The broker.")
@click.option(
    "--edge-workers",
    "--edges",
    "edges",
    type=COUNT,
    default=1,
    show_default=True,
    help="Edge processes; they share the edge port and the load.",
)
@click.option("--edge-tls-cert", type=FILE, help="PEM: the certificate with its chain. Clients then speak https.")
@click.option("--edge-tls-key", type=FILE, help="PEM: its key. Both are read again when they change.")
@click.option(
    "--budgets",
    type=COUNT,
    default=1,
    show_default=True,
    help="Budget replicas: each shard has one, the others stand by.",
)
@click.option(
    "--shards", type=COUNT, default=1, show_default=True, help="Shards of the ledger; an organisation lives in one."
)
def command(**given: object) -> None:
    """Start everything on this machine and keep it running. Ports: 0 is any free one.

    Without ANTHROPIC_API_KEY traffic goes to the simulator. `SLUICEGATE_EDGE_LOG_LEVEL=debug` sets EDGE_LOG_LEVEL of
    the service edge, and so for each setting of each service.
    """
    if (given["edge_tls_cert"] is None) != (given["edge_tls_key"] is None):
        raise click.UsageError("--edge-tls-cert and --edge-tls-key belong together")
    asyncio.run(up.up(Options(**given), os.environ))  # type: ignore[arg-type]  # click has converted them
