"""The file of an outbox: made, locked, mapped, and reserved piece by piece.

Theory of operation
-------------------
The whole file is mapped once, sparse; the disk space of a piece is reserved before it is written to, because a store
into a page for which the disk has no room kills the process with SIGBUS.

A POSIX record lock tells the living from the dead. It belongs to the process: a forked child does not have it, and
closing *any* descriptor of the file in the process gives it up. So a file is never opened twice in one process;
`is_held` is what others ask before they open one.

In a forked child the mapping stays and is closed like any other. (With MADV_DONTFORK it would be missing there, and
the child's unmapping of it would hit whatever has been mapped to those addresses since.)
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import resource
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tlogs.outbox import ring
from tlogs.outbox.descriptors import Descriptor, standard_streams_kept
from tlogs_shared.errors import ConfigError, StoreError
from tlogs_shared.host import outbox_path
from tlogs_shared.quantity import parse_size

__all__ = ["CRASH_LOGGER", "SIDE_SUFFIX", "OutboxFile", "held", "is_held", "outbox_capacity", "outbox_directory"]

SIDE_SUFFIX: Final = ".fault"
"""What faulthandler's file is called behind the outbox's own name."""

CRASH_LOGGER: Final = "tlogs.crash"
"""The logger that the records of last words name, whoever makes them: the process, or whoever recovers its outbox."""

DEFAULT_CAPACITY_BYTES: Final = 64 << 20
FORK_SHARE: Final = 16
"""A fork gets this part of a rank's capacity: there may be dozens of data loader workers for each rank."""

FREE_SHARE: Final = 100
"""An outbox takes at most one part in so many of what is free: the training's own files matter more."""

held: Final[set[tuple[int, int]]] = set()
"""Device and inode of each outbox that this process has open, its own and those that it recovers."""


def is_held(found: os.stat_result) -> bool:
    """Whether this process itself has the file open as an outbox: it must not be opened again then."""
    return (found.st_dev, found.st_ino) in held


def outbox_capacity(environ: Mapping[str, str], *, fork: bool = False) -> int:
    """The largest size of this process's outbox in bytes, from TLOGS_OUTBOX_BYTES.

    >>> outbox_capacity({"TLOGS_OUTBOX_BYTES": "16MiB"}), outbox_capacity({}, fork=True)
    (16777216, 4194304)

    Raises:
        ConfigError: not a size, or too small for an outbox.
    """
    text = environ.get("TLOGS_OUTBOX_BYTES", "")
    capacity = DEFAULT_CAPACITY_BYTES
    if text:
        capacity = parse_size(text, source="TLOGS_OUTBOX_BYTES")
        if capacity < ring.MIN_CAPACITY_BYTES:
            raise ConfigError(f"TLOGS_OUTBOX_BYTES={text!r}: expected at least {ring.MIN_CAPACITY_BYTES} bytes")
    return max(capacity // FORK_SHARE, ring.MIN_CAPACITY_BYTES) if fork else capacity


def outbox_directory(environ: Mapping[str, str]) -> Path:
    """The directory that holds this user's outboxes: TLOGS_OUTBOX_DIR, else one below the temporary directory.

    Raises:
        ConfigError: TLOGS_OUTBOX_DIR is no directory of this user's, or others may write to it.
        StoreError: the directory in the temporary directory cannot be made, or is not this user's.
    """
    asked = environ.get("TLOGS_OUTBOX_DIR")
    path = outbox_path(environ)
    try:
        path.mkdir(mode=0o700, parents=bool(asked), exist_ok=True)
        # A link planted under the default name by somebody else must not be followed; one's own setting may be a link.
        found = path.stat() if asked else path.lstat()
        if not stat.S_ISDIR(found.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "not a directory")
        if found.st_uid != os.getuid():
            raise PermissionError(errno.EPERM, f"belongs to user {found.st_uid}, expected {os.getuid()}")
        if not asked and found.st_mode & 0o077:
            path.chmod(0o700)
        elif found.st_mode & 0o022:
            raise PermissionError(errno.EPERM, "others may write to it: chmod go-w")
    except OSError as error:
        if asked:
            raise ConfigError(f"TLOGS_OUTBOX_DIR={asked!r}: {error.strerror}") from None
        text = f"no directory for outboxes: {error.strerror} (set TLOGS_OUTBOX_DIR to a directory of your own)"
        raise StoreError(error.errno, text, str(path)) from None
    return path


class OutboxFile:
    """An outbox file that this process has made, holds locked, and has mapped.

    `view` is the whole file, `words` the same as numbers of eight bytes; only reserved pieces may be touched.
    """

    def __init__(self, path: str | os.PathLike[str], header: ring.FileHeader) -> None:
        """Make the file, with its first piece; a capacity that is large for this disk is lowered.

        Raises:
            StoreError: the file cannot be made, or the disk has no room for one piece.
            ConfigError: the metadata is too large.
        """
        self.path = os.fspath(path)
        self.pieces = 0
        # Under another name until it is locked and whole, so that nobody takes it for a dead process's.
        new = f"{self.path}.new"
        self._descriptor: Descriptor | None = None
        try:
            if os.path.lexists(self.path):
                raise FileExistsError(errno.EEXIST, "there is such a file already")
            with standard_streams_kept():
                self._make(new, header)
            os.rename(new, self.path)
        except (OSError, ValueError) as error:
            if self._descriptor is not None:
                self._descriptor.close()
                os.unlink(new)
            if isinstance(error, OSError):
                text = f"cannot make an outbox: {error.strerror} (TLOGS_OUTBOX_DIR chooses another directory)"
                raise StoreError(error.errno, text, self.path) from None
            raise ConfigError(f"cannot make an outbox: {error}") from None
        assert self._descriptor is not None
        self._key: tuple[int, int] = self._descriptor.file
        held.add(self._key)

    def _make(self, path: str, header: ring.FileHeader) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(path, flags, 0o600)
        try:
            self._descriptor = Descriptor(fd)
        except OSError:
            os.unlink(path)
            raise
        fd = self._descriptor.number
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.capacity = min(header.capacity, max(_affordable(fd), ring.MIN_CAPACITY_BYTES))
        self.piece = ring.piece_bytes(self.capacity)
        self.size = ring.START_BYTES + self.capacity // self.piece * self.piece
        os.ftruncate(fd, self.size)
        _reserve(fd, 0, ring.START_BYTES + self.piece)
        self._map = _mapped(fd, self.size)
        self.view = memoryview(self._map)
        self.words = self.view.cast("Q")
        made = ring.FileHeader(header.stream, self.capacity, self.piece, meta=header.meta)
        self.view[: ring.START_BYTES] = made.pack()
        self.pieces = 1

    def base(self, index: int) -> int:
        """Where the piece with this index begins."""
        return ring.START_BYTES + index * self.piece

    def grow(self) -> int | None:
        """Reserve one piece more and return its index; None where the capacity or the share of the disk is used up."""
        after = (self.pieces + 1) * self.piece
        if after > self.size - ring.START_BYTES:
            return None
        if self._descriptor is None or not self._descriptor.is_ours:
            return None  # the program has closed it
        try:
            fd = self._descriptor.number
            if after > _affordable(fd) + self.pieces * self.piece // FREE_SHARE:
                return None
            _reserve(fd, self.base(self.pieces), self.piece)
        except OSError:
            return None
        self.pieces += 1
        return self.pieces - 1

    def store_acknowledged(self, watermark: int) -> None:
        """Publish the watermark."""
        self.words[ring.ACKNOWLEDGED_INDEX] = watermark

    def store_meta(self, meta: Mapping[str, Any]) -> None:
        """Publish new metadata.

        Raises:
            ConfigError: it is too large.
        """
        try:
            where, slot, packed = ring.pack_meta(meta, self.words[ring.META_INDEX])
        except ValueError as error:
            raise ConfigError(f"an outbox with {error}") from None
        self.view[where : where + len(packed)] = packed
        self.words[ring.META_INDEX] = slot

    def store_dropped(self, dropped: Mapping[int, int]) -> None:
        """Publish how many records of each level were dropped; levels beyond the table's size are left out."""
        for index, (level, count) in zip(range(ring.DROPS_SLOTS), dropped.items(), strict=False):
            where = (ring.DROPS_OFFSET + index * 16) // 8
            self.words[where] = level & 0xFFFFFFFFFFFFFFFF
            self.words[where + 1] = count

    def close(self, *, delete: bool) -> None:
        """Give up the mapping and the lock; with *delete* the file goes first, while nobody else can have it."""
        if delete:
            try:
                os.unlink(self.path)
            except OSError:
                pass  # gone already, or the directory has become read-only: whoever recovers it finds nothing new in it
        self.forget()

    def forget(self) -> None:
        """Close the descriptors and the mapping. In a forked child this takes nothing from the parent."""
        held.discard(self._key)
        try:
            self.words.release()
            self.view.release()
            self._map.close()
        except BufferError:
            pass  # somebody still reads an extent: the mapping goes with the last of them
        if self._descriptor is not None:
            self._descriptor.close()


def _mapped(fd: int, size: int) -> mmap.mmap:
    """Map the file, without a second descriptor where Python can do that: closing one ends the lock."""
    if sys.version_info >= (3, 13):
        return mmap.mmap(fd, size, trackfd=False)
    return mmap.mmap(fd, size)


def _affordable(fd: int) -> int:
    """The share of the free disk space that an outbox may take, and no more than a file of this process may have."""
    found = os.fstatvfs(fd)
    share = found.f_bavail * found.f_frsize // FREE_SHARE
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return share if limit == resource.RLIM_INFINITY else min(share, limit - ring.START_BYTES)


if hasattr(os, "posix_fallocate"):
    _reserve = os.posix_fallocate
else:  # macOS

    def _reserve(fd: int, offset: int, size: int) -> None:
        """Reserve by writing zeros, which is all that is left."""
        written = 0
        while written < size:
            written += os.pwrite(fd, bytes(min(size - written, 1 << 20)), offset + written)
