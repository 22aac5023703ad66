"""Where the commands are joined to one program."""

import importlib
from importlib import metadata

import click

COMMANDS = {
    "up": "Start everything on this machine.",
    "status": "What runs, and whether it is ready.",
    "doctor": "Check this installation and say what to mend.",
    "conformance": "Check what a gateway gives Claude Code, this one or any other.",
    "connect": "Point Claude Code to this gateway.",
    "apply": "Apply an organisation file.",
    "get": "Show what is governed.",
    "budgets": "Balances, grants and top-ups.",
    "keys": "Make, rotate, revoke and list virtual keys.",
    "orgs": "Move an organisation to another shard.",
    "usage": "Spend and tokens by group.",
    "requests": "The log of client requests.",
    "simulate": "Send traffic of the kind a team makes.",
    "audit": "Verify the tamper-evident record.",
    "ledger": "Verify the ledger, and explain one attempt of it.",
    "provision": "Make streams and tables, for a cluster.",
}
"""One module of services.cli.commands each, imported when it is called: `up` must not wait for what `audit` needs."""


class Program(click.Group):
    """Finds a command by its module's name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"services.cli.commands.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(metadata.version("sluicegate"), prog_name="sluicegate")
def program() -> None:
    """A self-hosted gateway between Claude Code and the model providers."""
