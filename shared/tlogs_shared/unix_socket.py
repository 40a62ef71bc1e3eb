"""Unix sockets in a directory of this user's alone: who can open one is the same user.

The one other module of this package that looks at the machine. A socket's path has 107 bytes at most, so sockets are
bound and dialled through a descriptor of their directory.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator, Mapping
from typing import Final

from tlogs_shared.host import SHARED_MEMORY, outbox_directories, temporary_directory

__all__ = ["open_private", "short_path", "socket_directories"]

MAX_PATH_BYTES: Final = 103 if sys.platform == "darwin" else 107
"""Of a socket's path, as the kernel takes it."""


def socket_directories(environ: Mapping[str, str]) -> Iterator[str]:
    """The directories in which this user's sockets may lie, best first."""
    runtime = environ.get("XDG_RUNTIME_DIR")
    if runtime and os.path.isdir(runtime):
        yield os.path.join(runtime, "tlogs")
    # Else beside the outboxes; in the temporary directory first, which all processes of a host see.
    if asked := environ.get("TLOGS_OUTBOX_DIR"):
        yield asked
    root = temporary_directory(environ)
    yield str(root / f"tlogs-{os.getuid()}")
    for directory in (*outbox_directories(root), *outbox_directories(SHARED_MEMORY)):
        yield str(directory)


def open_private(directory: str) -> int:
    """A descriptor of *directory*, which is made where it is missing.

    Raises:
        OSError: it cannot be made, is a link, is somebody else's, or others may enter it.
    """
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        pass
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    found = os.fstat(fd)
    if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        os.close(fd)
        raise PermissionError(f"{directory}: expected a directory of this user's alone (mode 0700)")
    return fd


def short_path(directory: str, fd: int, name: str) -> str:
    """A path of *name* in *directory* that is short enough for the kernel for as long as *fd*, its descriptor, is open.

    Raises:
        OSError: the path is too long, and this system has no /proc to shorten it.
    """
    if os.path.isdir(f"/proc/self/fd/{fd}"):
        return f"/proc/self/fd/{fd}/{name}"
    path = os.path.join(directory, name)
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise OSError(f"{path}: too long for a socket")
    return path
