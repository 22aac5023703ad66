"""What the targets start from, a folder for each; names tell where a case comes from, `broke-…` what once broke one."""

import hashlib
from pathlib import Path

FOLDER = Path(__file__).parent


def kept(target: str) -> list[bytes]:
    return [path.read_bytes() for path in paths(target)]


def paths(target: str) -> list[Path]:
    return sorted(path for path in (FOLDER / target).iterdir() if path.is_file())


def keep(target: str, data: bytes) -> Path:
    """As a case that breaks a promise."""
    path = FOLDER / target / f"broke-{hashlib.sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    return path
