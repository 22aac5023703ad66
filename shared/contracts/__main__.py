"""`python -m shared.contracts schemas` writes schemas/ anew."""

import sys
from pathlib import Path

from shared.contracts import schemas


def main() -> None:
    if sys.argv[1:] != ["schemas"]:
        sys.exit("usage: python -m shared.contracts schemas")
    schemas.write(Path("schemas"))


if __name__ == "__main__":
    main()
