"""Descriptors of ours in a program that is not ours: out of its way, and never confused with one of its own.

A program may close descriptors that it did not open (a daemon closes all of them) and gets their numbers for files of
its own; one that was started with standard output closed gets number 1 for the first file that it opens. So ours are
the highest free ones, and each use asks first whether the number still leads to the file that it was opened for.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["Descriptor", "standard_streams_kept"]

FIRST: Final = 3
"""Below it are standard input, output and error, also where they are closed."""

CEILING: Final = 1024
"""A descriptor at the top of a limit of a million makes a table of 8 MiB in each process and fork."""


class Descriptor:
    """A descriptor of ours, moved to the highest free number; `file` is the device and inode that it was opened for."""

    __slots__ = ("file", "number")

    def __init__(self, fd: int) -> None:
        """Move *fd* up; it must not hold a POSIX lock, which would end with the old number.

        Raises:
            OSError: no number from 3 on is free.
        """
        self.number = _moved(fd)
        self.file = _identity(self.number)

    @property
    def is_ours(self) -> bool:
        """Return whether the number is still our file's: the program may have closed it, and opened one of its own."""
        try:
            return _identity(self.number) == self.file
        except OSError:
            return False

    def replace(self, fd: int) -> bool:
        """Let the number lead to the file of *fd* from now on, and close *fd*; return False where it is not ours."""
        if not self.is_ours:
            return False
        os.dup2(fd, self.number, inheritable=False)
        os.close(fd)
        self.file = _identity(self.number)
        return True

    def close(self) -> None:
        """Close it, unless the program has."""
        if self.is_ours:
            os.close(self.number)


@contextmanager
def standard_streams_kept() -> Iterator[None]:
    """Keep numbers below 3 that are free from being used by what is opened meanwhile."""
    plugs: list[int] = []
    try:
        while not plugs or plugs[-1] < FIRST:
            plugs.append(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
        os.close(plugs.pop())
        yield
    finally:
        for plug in plugs:
            os.close(plug)


def _moved(fd: int) -> int:
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    ceiling = CEILING if soft == resource.RLIM_INFINITY else min(soft, CEILING)
    for number in range(ceiling - 1, FIRST - 1, -1):
        if number == fd:
            return fd  # nothing above it is free
        if not _is_free(number):
            continue
        try:
            moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, number)
        except OSError:
            continue  # another thread was faster, and nothing above is free
        os.close(fd)
        return moved
    if fd >= FIRST:
        return fd
    os.close(fd)
    raise OSError(errno.EMFILE, f"no descriptor from {FIRST} to {ceiling - 1} is free")


def _is_free(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return True
    return False


def _identity(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino
