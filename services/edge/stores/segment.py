"""The spool's files: append-only segments of `length | crc32 | payload`, little endian."""

import errno
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

_HEADER = struct.Struct("<II")
SUFFIX = ".spool"

Sync = Callable[[int], None]
"""Brings a file's data to disk, as os.fdatasync does."""


class SpoolFailed(Exception):
    """The spool cannot be written or synced: nothing governed may be sent."""


class Place(msgspec.Struct, frozen=True):
    """Where a record's payload stands."""

    segment: int
    offset: int
    length: int


class Segment:
    """One file, open for appending."""

    def __init__(self, folder: Path, number: int) -> None:
        self.number = number
        self.fd = os.open(path_of(folder, number), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self.size = 0

    def append(self, payloads: Sequence[bytes]) -> list[Place]:
        """Into the page cache, in one go. Raises OSError and leaves no torn record, nor any of the others."""
        places, frames, size = list[Place](), list[bytes](), self.size
        for payload in payloads:
            frames += [_HEADER.pack(len(payload), zlib.crc32(payload)), payload]
            places.append(Place(self.number, size + _HEADER.size, len(payload)))
            size += _HEADER.size + len(payload)
        try:
            if os.write(self.fd, b"".join(frames)) != size - self.size:
                raise OSError(errno.ENOSPC, "no space for the whole record")
        except OSError:
            os.ftruncate(self.fd, self.size)
            raise
        self.size = size
        return places


def path_of(folder: Path, number: int) -> Path:
    return folder / f"{number:012d}{SUFFIX}"


def numbers(folder: Path) -> list[int]:
    """Segments there are, oldest first."""
    return sorted(int(path.stem) for path in folder.glob(f"*{SUFFIX}"))


def scan(folder: Path, number: int) -> tuple[list[tuple[Place, bytes]], int]:
    """All good records of a segment, and how many bytes after them are torn."""
    data = path_of(folder, number).read_bytes()
    found = list(_records(number, data))
    good = found[-1][0].offset + found[-1][0].length if found else 0
    return found, len(data) - good


def _records(number: int, data: bytes) -> Iterator[tuple[Place, bytes]]:
    at = 0
    while at + _HEADER.size <= len(data):
        length, crc = _HEADER.unpack_from(data, at)
        at += _HEADER.size
        payload = data[at : at + length]
        if not length or len(payload) < length or zlib.crc32(payload) != crc:
            return
        yield Place(number, at, length), payload
        at += length


def sync_folder(folder: Path) -> None:
    """Make the folder's own entries durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
