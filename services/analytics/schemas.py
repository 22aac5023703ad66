"""`python -m services.analytics.schemas` writes schemas/clickhouse: the migrations as the embedded defaults fill them in."""

from pathlib import Path

from services.analytics.settings import Settings
from services.analytics.stores.migrations import migrations, render

FOLDER = Path("schemas/clickhouse")
NOTE = "-- Written by `python -m services.analytics.schemas` from services/analytics/migrations; edit those.\n"


def documents() -> dict[str, str]:
    """File name to text."""
    return {migration.name: NOTE + render(migration.text, Settings()) for migration in migrations()}


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for stale in set(FOLDER.glob("*.sql")) - {FOLDER / name for name in documents()}:
        stale.unlink()
    for name, text in documents().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
