"""`python -m services.analytics`."""

from functools import partial

from services.analytics.app import build_app
from services.analytics.settings import Settings
from shared.service import run
from shared.settings import load


def main() -> None:
    settings = load(Settings, "ANALYTICS")
    run("analytics", partial(build_app, settings), settings)


if __name__ == "__main__":
    main()
