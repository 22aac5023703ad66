"""A machine that loses power: a filesystem on a loop device that is stopped dead, with whatever it has not written yet.

FS_IOC_SHUTDOWN without a flush ends all writing of a mounted ext4 at one instant, its journal included; what was not
brought to the device by an fsync, or by the kernel on its own, is gone. Mounting it again recovers the journal, as after a
power cut. The device keeps every write that it has acknowledged: a disk that lies about its cache is not played here.
"""

import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SHUTDOWN = (2 << 30) | (4 << 16) | (ord("X") << 8) | 125  # linux/fs.h: FS_IOC_SHUTDOWN, _IOR('X', 125, __u32)
WITHOUT_FLUSH = struct.pack("I", 2)  # FS_SHUTDOWN_FLAGS_NOLOGFLUSH
SIZE = 1 << 30
COMMIT_SECONDS = 300  # ext4 writes its journal every 5 s by itself: here only those are safe who have asked
TOOLS = ("mkfs.ext4", "mount", "umount", "losetup")


def missing() -> str:
    """Why no power can be cut here; empty where it can."""
    if os.geteuid() != 0:
        return "not root"
    if tools := [tool for tool in TOOLS if shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]:
        return f"{', '.join(tools)} not installed"
    with tempfile.TemporaryDirectory() as folder:
        try:
            with disk(Path(folder, "trial.img"), Path(folder, "trial")) as trial:
                trial.cut_power()
        except (subprocess.CalledProcessError, OSError) as error:
            return f"a trial failed: {getattr(error, 'stderr', '') or error}"
    return ""


class Disk:
    """An ext4 in a file, mounted at `at`."""

    def __init__(self, image: Path, at: Path) -> None:
        self._image, self.at = image, at

    def make(self) -> None:
        with self._image.open("wb") as file:
            file.truncate(SIZE)
        _run("mkfs.ext4", "-q", "-F", str(self._image))
        self.at.mkdir()

    def mount(self) -> None:
        """Recovers the journal where the power was cut. Raises CalledProcessError where mounting is not permitted."""
        _run("mount", "-o", f"loop,commit={COMMIT_SECONDS}", str(self._image), str(self.at))

    def cut_power(self) -> None:
        """From here on nothing is written; whoever still runs sees errors."""
        folder = os.open(self.at, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(folder, SHUTDOWN, WITHOUT_FLUSH)
        finally:
            os.close(folder)

    def unmount(self, seconds: float = 10.0) -> None:
        """Once its users are gone; the kernel needs a moment to notice that."""
        deadline = time.monotonic() + seconds
        while (done := _run("umount", str(self.at), check=False)).returncode:
            if time.monotonic() > deadline:
                raise OSError(f"{self.at} stays in use: {done.stderr}")
            time.sleep(0.05)


@contextmanager
def disk(image: Path, at: Path) -> Iterator[Disk]:
    made = Disk(image, at)
    made.make()
    made.mount()
    try:
        yield made
    finally:
        made.unmount()
        image.unlink()  # it would be copied with the folder's other remains


def _run(*command: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    environ = os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    return subprocess.run(command, check=check, capture_output=True, text=True, env=environ)
