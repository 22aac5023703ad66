"""Whether files have changed, also where what changed is a link on the way to them, as in Kubernetes' volumes."""

from collections.abc import Sequence
from pathlib import Path

Stamp = tuple[tuple[int, int, int] | None, ...]
"""For each file inode, size and time of the last change; None where there is none."""


def stamp(files: Sequence[str]) -> Stamp:
    return tuple(_of(Path(name)) for name in files)


def _of(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
