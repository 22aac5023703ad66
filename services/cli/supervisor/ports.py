"""Ports: free ones, taken ones, and the file that tells which were chosen."""

import json
import socket
from pathlib import Path

from services.cli.errors import Trouble

LOOPBACK = "127.0.0.1"


def require_free(port: int, option: str) -> None:
    """Raises Trouble naming the port and the option that moves it. 0 is always free."""
    if port and not is_free(port):
        raise Trouble(f"port {port} is taken by another program; choose another with {option} (0 takes any free one)")


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        # as the servers do: connections of a former run that linger in TIME_WAIT do not count
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)  # two sockets may be bound with SO_REUSEADDR, but only one may listen
        except OSError:
            return False
    return True


def write(path: Path, ports: dict[str, object]) -> None:
    """Atomically: a reader never sees half a file."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(ports, indent=1))
    part.replace(path)


def read(path: Path) -> dict[str, object] | None:
    """None when nothing runs there."""
    try:
        found = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return None
    return found if isinstance(found, dict) else None


def any_free() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
    return port
