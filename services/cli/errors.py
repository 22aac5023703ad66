"""What a person is told instead of a traceback."""

import click


class Trouble(click.ClickException):
    """Something the user can mend: one clear line that says what and how, exit code 1."""
