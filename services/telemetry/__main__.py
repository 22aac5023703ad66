"""`python -m services.telemetry`."""

import os
from functools import partial

from services.telemetry.app import build_app
from services.telemetry.settings import Settings, signals
from shared.service import run
from shared.settings import load


def main() -> None:
    settings = load(Settings, "TELEMETRY")
    run("telemetry", partial(build_app, settings, signals(os.environ)), settings)


if __name__ == "__main__":
    main()
