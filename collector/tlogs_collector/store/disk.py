"""The few things that the store asks of a disk, so that a test can put a disk of its own in its place.

Every operation raises OSError as the system gives it; the store makes StoreErrors of them.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple, Protocol

__all__ = ["Disk", "LocalDisk", "Space"]


class Space(NamedTuple):
    """Bytes of a file system: what this user may still use, and all."""

    available: int
    total: int


class Disk(Protocol):
    """Files by their path, open files by a number. Nothing is on the disk for certain before a sync."""

    def create(self, path: str) -> int:
        """Open a new file, 0600; one of that name is emptied."""

    def open(self, path: str) -> int:
        """Open a file that exists, to read and write."""

    def extend(self, path: str) -> int:
        """Open a file, new where it does not exist, so that every write goes to its end."""

    def lock(self, path: str) -> int | None:
        """Open a file, new where it does not exist, and keep it for this process; None where another has it."""

    def close(self, file: int) -> None:
        """Close an open file."""

    def size(self, file: int) -> int:
        """The size of an open file."""

    def read(self, file: int, size: int, offset: int) -> bytes:
        """At most *size* bytes; fewer only at the end of the file."""

    def write(self, file: int, pieces: Sequence[bytes]) -> int:
        """Write where the last write ended; how many bytes were taken, perhaps not all."""

    def write_at(self, file: int, data: bytes, offset: int) -> None:
        """Write a few bytes in place."""

    def truncate(self, file: int, size: int) -> None:
        """Cut an open file; the next write goes to its new end."""

    def sync(self, file: int) -> None:
        """Wait until content and size of the file are on the disk."""

    def sync_directory(self, path: str) -> None:
        """Wait until the names in a directory are on the disk."""

    def rename(self, old: str, new: str) -> None:
        """Rename a file; one that has the new name is replaced, at once."""

    def unlink(self, path: str) -> None:
        """Remove a file."""

    def make_directory(self, path: str) -> None:
        """Make a directory, 0700, and those above it; one that exists is left as it is."""

    def remove_directory(self, path: str) -> None:
        """Remove an empty directory."""

    def names(self, path: str) -> list[str]:
        """The names in a directory."""

    def is_directory(self, path: str) -> bool:
        """Whether there is a directory of that name."""

    def modified(self, path: str) -> float:
        """When a file was last written, in seconds since the epoch."""

    def space(self, path: str) -> Space:
        """The space of the file system that holds *path*."""


class LocalDisk:
    """The operating system's files."""

    def create(self, path: str) -> int:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)

    def open(self, path: str) -> int:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def extend(self, path: str) -> int:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def lock(self, path: str) -> int | None:
        while True:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                # flock, not lockf: a record lock would be gone as soon as anything in this process, a reader of the
                # same run for one, closes the file. The collector has no forked children that could keep it alive.
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(file), os.stat(path)):
                    return file
            except BlockingIOError:
                os.close(file)
                return None
            except FileNotFoundError:
                pass  # the run was removed between the two calls
            except BaseException:
                os.close(file)
                raise
            os.close(file)

    def close(self, file: int) -> None:
        os.close(file)

    def size(self, file: int) -> int:
        return os.fstat(file).st_size

    def read(self, file: int, size: int, offset: int) -> bytes:
        return os.pread(file, size, offset)

    def write(self, file: int, pieces: Sequence[bytes]) -> int:
        return os.writev(file, pieces)

    def write_at(self, file: int, data: bytes, offset: int) -> None:
        os.pwrite(file, data, offset)

    def truncate(self, file: int, size: int) -> None:
        os.ftruncate(file, size)
        os.lseek(file, size, os.SEEK_SET)

    def sync(self, file: int) -> None:
        if sys.platform == "darwin":
            # There fsync only hands the data to the drive.
            fcntl.fcntl(file, fcntl.F_FULLFSYNC)
        else:
            os.fdatasync(file)

    def sync_directory(self, path: str) -> None:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def rename(self, old: str, new: str) -> None:
        os.replace(old, new)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def make_directory(self, path: str) -> None:
        os.makedirs(path, mode=0o700, exist_ok=True)

    def remove_directory(self, path: str) -> None:
        os.rmdir(path)

    def names(self, path: str) -> list[str]:
        return os.listdir(path)

    def is_directory(self, path: str) -> bool:
        return os.path.isdir(path)

    def modified(self, path: str) -> float:
        return os.stat(path).st_mtime

    def space(self, path: str) -> Space:
        found = os.statvfs(path)
        return Space(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)
