"""Starts the console."""

import sys

from services.console.app import build_app
from services.console.settings import Settings
from shared.service import run
from shared.settings import SettingsError, load


def main() -> None:
    try:
        settings = load(Settings, "CONSOLE")
        run("console", lambda: build_app(settings), settings)
    except SettingsError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
