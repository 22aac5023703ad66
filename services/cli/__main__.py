"""`sluicegate …`, also `python -m services.cli …`."""

from services.cli.app import program


def main() -> None:
    """Run the command that the arguments name."""
    program(prog_name="sluicegate")


if __name__ == "__main__":
    main()
