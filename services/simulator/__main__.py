"""`python -m services.simulator`"""

from services.simulator.app import build_app
from services.simulator.settings import Settings
from shared import service
from shared.settings import load


def main() -> None:
    """Settings, logging, run."""
    settings = load(Settings, "SIMULATOR")
    service.run("simulator", lambda: build_app(settings), settings)


if __name__ == "__main__":
    main()
