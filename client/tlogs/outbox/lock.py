"""Locks on single bytes of an outbox: one says that its writer has it open, one is held by whoever sends from it.

They belong to the open file description (OFD locks of Linux): other descriptors of the file come and go without
touching them, and they end with the last process that has the description. So whoever locks opens the file anew.
"""

from __future__ import annotations

import fcntl
import os
import struct
from typing import Final

__all__ = ["SENDER", "WRITER", "is_locked", "try_lock"]

WRITER: Final = 0
"""Held by the process that writes the outbox, as long as it has the file open."""

SENDER: Final = 1
"""Held by the process that sends from the outbox: only it stores the watermark."""

_HAS_OFD: Final = hasattr(fcntl, "F_OFD_SETLK")
_FLOCK: Final = struct.Struct("hhqqi4x")  # type, whence, start, length, process: the kernel's struct flock


def try_lock(fd: int, byte: int, count: int = 1) -> bool:
    """Lock *count* bytes from this one on, for as long as the description of *fd* is open; False if another has them.

    Without OFD locks (macOS) the sender's is an flock, and there is none for the writer.
    """
    try:
        if _HAS_OFD:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, count, 0))
        elif byte == SENDER:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def is_locked(fd: int, byte: int) -> bool:
    """Return True if another description, or another process, has this byte locked."""
    if not _HAS_OFD:
        return False
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    kind: int = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))[0]
    return kind != fcntl.F_UNLCK
