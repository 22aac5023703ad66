"""The data directory: one start at a time, its secrets, and where each part keeps its files."""

import asyncio
import fcntl
import os
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import msgspec

from services.cli.errors import Trouble

LOG_BYTES = 8 * 1024 * 1024


class Layout(msgspec.Struct, frozen=True):
    """Paths below one data directory."""

    root: Path

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def family_lock(self) -> Path:
        return self.root / "run" / "children.lock"

    @property
    def ports(self) -> Path:
        return self.root / "ports.json"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def bill(self) -> Path:
        return self.root / "simulator" / "bill.jsonl"

    @property
    def first_key(self) -> Path:
        return self.root / "first-key"

    @property
    def admin_token(self) -> Path:
        return self.root / "admin-token"

    @property
    def given_token(self) -> Path:
        """The token of SLUICEGATE_ADMIN_TOKEN while `up` runs with one; `admin-token` stays what it was."""
        return self.root / "run" / "admin-token"

    @property
    def simulator_port(self) -> Path:
        return self.root / "simulator" / "port"

    @property
    def credential_names(self) -> Path:
        """Names of the environment variables that the organisation's `env:` references mean."""
        return self.root / "run" / "credential-names"

    def ready_file(self, name: str) -> Path:
        return self.root / "run" / f"{name}.json"

    def edges(self) -> int:
        """How many edge workers have left a spool here: whoever is given up must first have told all that it knows."""
        left = (path.parent.name.removeprefix("edge-") for path in self.root.glob("edge-*/edge-id"))
        return max([1, *(int(number) for number in left if number.isdigit())])

    def of(self, name: str) -> Path:
        """Where one service keeps its own files."""
        return self.root / name


@contextmanager
def opened(root: Path) -> Iterator[Layout]:
    """Make the directory if need be and hold it alone. Raises Trouble: in use, or not writable."""
    layout = Layout(root.resolve())
    try:
        layout.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in ("run", "logs", "nats", "edge", "clickhouse", "simulator"):
            (layout.root / folder).mkdir(mode=0o700, exist_ok=True)
        lock = os.open(layout.lock, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise Trouble(
            f"the data directory {layout.root} cannot be written ({error.strerror}); choose another with --data-dir"
        ) from None
    try:
        _hold(lock, layout)
        layout.ports.unlink(missing_ok=True)
        yield layout
    finally:
        os.close(lock)


def _hold(lock: int, layout: Layout) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        pid = os.pread(lock, 32, 0).decode().strip()
        raise Trouble(
            f"sluicegate already runs on {layout.root} (pid {pid or 'unknown'}); stop it or choose another --data-dir"
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)


@asynccontextmanager
async def family(layout: Layout, seconds: float = 10.0) -> AsyncIterator[int]:
    """A lock that every child inherits: whoever gets it knows that no process of an earlier start is left.

    Yields the descriptor to hand down. Children of a killed supervisor are ended by the kernel within milliseconds.
    """
    held = os.open(layout.family_lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + seconds
        while not _locked(held):
            if time.monotonic() > deadline:
                raise Trouble(f"processes of an earlier start still run on {layout.root}; end them and start again")
            await asyncio.sleep(0.02)
        yield held
    finally:
        os.close(held)


def _locked(held: int) -> bool:
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def write_secret(path: Path, secret: str) -> None:
    """Replace the file by one that only its owner can read; never half a file."""
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"{secret}\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def read_secret(path: Path) -> str:
    """Empty when there is none."""
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""


def admin_token(layout: Layout, given: str) -> tuple[str, Path]:
    """The token in force and the file that holds it: the one given, else the one made at the first start."""
    if given:
        write_secret(layout.given_token, given)
        return given, layout.given_token
    layout.given_token.unlink(missing_ok=True)
    if token := read_secret(layout.admin_token):
        return token, layout.admin_token
    token = secrets.token_urlsafe(32)
    write_secret(layout.admin_token, token)
    return token, layout.admin_token


def open_log(layout: Layout, name: str) -> int:
    """Append to the service's log; a long one is put aside first, once."""
    path = layout.logs / f"{name}.log"
    if path.exists() and path.stat().st_size > LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
