"""Where outboxes are kept: the directories in the order in which a worker tries them.

A place that is full, read-only, somebody else's, or on a file system where one host does not see what another has
mapped, is skipped: a program does not fail because its log has no place.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tlogs.outbox import memory
from tlogs.outbox.outbox import Outbox
from tlogs_shared.errors import StoreError
from tlogs_shared.host import SHARED_MEMORY, file_system, is_coherent, is_ours, outbox_directories, temporary_directory

__all__ = ["make", "places"]

FREE_BYTES: Final = 1 << 30
"""So much must be free in memory for outboxes to be kept there."""

PIECE_BYTES: Final = 4 << 20
"""The initial size of a rank's outbox."""


def make(
    environ: Mapping[str, str], name: str, *, complain: Callable[[str], None] = lambda text: None, **more: Any
) -> Outbox:
    """Make an outbox called *name* in the first place that takes it; *complain* gets what a person may want to mend.

    Raises:
        StoreError: no place does.
        ConfigError: the metadata is too large.
    """
    problem = "no directory takes an outbox (TLOGS_OUTBOX_DIR names one of your own)"
    for place in places(environ, complain):
        try:
            return Outbox(place / name, **more)
        except StoreError as error:
            problem = str(error)
    raise StoreError(errno.ENOSPC, problem)


def places(environ: Mapping[str, str], complain: Callable[[str], None] = lambda text: None) -> Iterator[Path]:
    """The directories for this process's outbox, made and checked, in order."""
    asked = environ.get("TLOGS_OUTBOX_DIR")
    if asked:
        try:
            yield _asked(Path(asked))
        except OSError as error:
            complain(f"TLOGS_OUTBOX_DIR={asked!r} is not used: {error.strerror}")
    for root in (SHARED_MEMORY, temporary_directory(environ)):
        try:
            if root is not SHARED_MEMORY or _has_room(root):
                yield _below(root)
        except OSError:
            pass  # not there, full, read-only


def _asked(path: Path) -> Path:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.stat()  # one's own setting may be a link
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "not a directory")
    if found.st_uid != os.getuid():
        raise PermissionError(errno.EPERM, f"belongs to user {found.st_uid}, expected {os.getuid()}")
    if found.st_mode & 0o022:
        raise PermissionError(errno.EPERM, "others may write to it: chmod go-w")
    return _coherent(path)


def _coherent(path: Path) -> Path:
    if not is_coherent(path):
        text = f"a file system of type {file_system(path)}, where two processes may see different files"
        raise OSError(errno.ENOTSUP, text)
    return path


def _has_room(root: Path) -> bool:
    found = os.statvfs(root)
    if found.f_bavail * found.f_frsize < FREE_BYTES:
        return False
    held = sum(memory.held_in(path) for path in outbox_directories(root))
    return memory.has_room(PIECE_BYTES, held + PIECE_BYTES)


def _below(root: Path) -> Path:
    """This user's directory below one that everybody may write to; under another name where somebody has taken it."""
    _coherent(root)
    path = root / f"tlogs-{os.getuid()}"
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        if not is_ours(path):
            ours = [found for found in outbox_directories(root) if found != path]
            path = ours[0] if ours else root / f"tlogs-{os.getuid()}-{secrets.token_hex(4)}"
            path.mkdir(mode=0o700, exist_ok=bool(ours))
    if path.stat().st_mode & 0o077:
        path.chmod(0o700)
    return path
