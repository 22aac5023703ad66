"""What stands below folders that a gateway is at work in: files come and go while they are looked at."""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path


def files(roots: Iterable[Path], ending: str = "") -> Iterator[tuple[Path, bytes]]:
    """Each file and what is in it. ending: of the names that count, in folders; a root that is a file always does."""
    for root in roots:
        if root.is_file():
            yield root, root.read_bytes()
        for folder, _, names in os.walk(root):  # passes over folders that are gone by now
            for path in (Path(folder, name) for name in names if name.endswith(ending)):
                with suppress(FileNotFoundError):
                    if path.is_file():
                        yield path, path.read_bytes()
