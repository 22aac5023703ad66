"""Runs the owner of the ledger."""

from services.budget.app import build_app
from services.budget.settings import PREFIX, Settings
from shared.service import run
from shared.settings import load


def main() -> None:
    settings = load(Settings, PREFIX)
    run("budget", lambda: build_app(settings), settings)


if __name__ == "__main__":
    main()
