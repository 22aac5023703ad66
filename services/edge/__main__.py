"""`python -m services.edge`: one worker."""

from services.edge.app import build_app
from services.edge.settings import Settings
from shared.service import run
from shared.settings import load


def main() -> None:
    settings = load(Settings, "EDGE")
    run("edge", lambda: build_app(settings), settings)


if __name__ == "__main__":
    main()
