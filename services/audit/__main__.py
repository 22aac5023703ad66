"""Starts audit."""

import sys

from services.audit.app import build_app
from services.audit.settings import Settings
from shared.service import run
from shared.settings import SettingsError, load


def main() -> None:
    try:
        settings = load(Settings, "AUDIT")
    except SettingsError as error:
        sys.exit(str(error))
    run("audit", lambda: build_app(settings), settings)


if __name__ == "__main__":
    main()
