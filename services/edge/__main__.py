"""`python -m services.edge`: one worker, or EDGE_WORKERS of them under a parent."""

from services.edge.app import build_app
from services.edge.settings import Settings
from services.edge.workers import build_parent, needed
from shared.service import run
from shared.settings import load


def main() -> None:
    settings = load(Settings, "EDGE")
    build = build_parent if needed(settings) > 1 else build_app
    run("edge", lambda: build(settings), settings)


if __name__ == "__main__":
    main()
