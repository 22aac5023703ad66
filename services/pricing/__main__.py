"""Runs the pricing service."""

from services.pricing.app import build_app
from services.pricing.settings import PREFIX, Settings
from shared.service import run
from shared.settings import load


def main() -> None:
    settings = load(Settings, PREFIX)
    run("pricing", lambda: build_app(settings), settings)


if __name__ == "__main__":
    main()
