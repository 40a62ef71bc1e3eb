"""The file of an outbox: made, locked, mapped, and reserved piece by piece.

Theory of operation
-------------------
The whole file is mapped once, sparse; the disk space of a piece is reserved before it is written to, because a store
into a page for which the disk has no room kills the process with SIGBUS.

Its process and a lock on one byte tell the living from the dead, see `tlogs.outbox.life` and `tlogs.outbox.lock`.

In a forked child the mapping stays and is closed like any other. (With MADV_DONTFORK it would be missing there, and
the child's unmapping of it would hit whatever has been mapped to those addresses since.)
"""

from __future__ import annotations

import errno
import mmap
import os
import resource
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from tlogs.outbox import memory, ring
from tlogs.outbox.descriptors import Descriptor, standard_streams_kept
from tlogs.outbox.lock import WRITER, try_lock
from tlogs_shared.errors import ConfigError, StoreError
from tlogs_shared.quantity import parse_size
from tlogs_shared.storage.layout import NEW_SUFFIX

__all__ = ["CRASH_LOGGER", "OutboxFile", "outbox_capacity"]

CRASH_LOGGER: Final = "tlogs.crash"
"""The logger that the records of last words name, whoever makes them: the process, or whoever recovers its outbox."""

DEFAULT_CAPACITY_BYTES: Final = 64 << 20
FORK_SHARE: Final = 16
"""A fork gets this part of a rank's capacity: there may be dozens of data loader workers for each rank."""

SMALL_CAPACITY: Final = 512 * 1024
"""A helper's capacity where there is no memory for more: its first piece is 256 KiB."""

FREE_SHARE: Final = 100
"""An outbox takes at most this fraction (1/100) of the free disk space: the training's own files matter more."""


def outbox_capacity(environ: Mapping[str, str], *, fork: bool = False) -> int:
    """The largest size of this process's outbox in bytes, from TLOGS_OUTBOX_BYTES.

    >>> outbox_capacity({"TLOGS_OUTBOX_BYTES": "16MiB"}), outbox_capacity({}, fork=True)
    (16777216, 4194304)

    Raises:
        ConfigError: no size, or too small for an outbox.
    """
    text = environ.get("TLOGS_OUTBOX_BYTES", "")
    capacity = DEFAULT_CAPACITY_BYTES
    if text:
        capacity = parse_size(text, source="TLOGS_OUTBOX_BYTES")
        if capacity < ring.MIN_CAPACITY:
            raise ConfigError(f"TLOGS_OUTBOX_BYTES={text!r}: expected at least {ring.MIN_CAPACITY} bytes")
    return max(capacity // FORK_SHARE, ring.MIN_CAPACITY) if fork else capacity


class OutboxFile:
    """An outbox file that this process has made and has mapped.

    `map` is the whole file, `view` and `words` the same as bytes and as numbers of eight bytes; only reserved pieces
    may be touched.
    """

    capacity: int
    piece: int
    start: int
    size: int
    map: mmap.mmap
    view: memoryview
    words: memoryview
    _is_memory: bool

    def __init__(self, path: str | os.PathLike[str], header: ring.OutboxHeader, *, helper: bool = False) -> None:
        """Make the file, with its first piece; a capacity that is large for this disk is lowered.

        A rank has its first piece whatever the memory, a *helper* a small one: there may be dozens of them.

        Raises:
            StoreError: the file cannot be made, or the disk has no room for one piece.
            ConfigError: the metadata is too large.
        """
        self.path = os.fspath(path)
        self.pieces = 0
        self.generations: list[int] = []
        # Under another name until it is locked and whole, so that nobody takes it for a dead process's.
        new = f"{self.path}{NEW_SUFFIX}"
        self._descriptor: Descriptor | None = None
        try:
            if os.path.lexists(self.path):
                raise FileExistsError(errno.EEXIST, "there is such a file already")
            with standard_streams_kept():
                self._make(new, header, helper)
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

    def _make(self, path: str, header: ring.OutboxHeader, helper: bool) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(path, flags, 0o600)
        try:
            self._descriptor = Descriptor(fd)
        except OSError:
            os.unlink(path)
            raise
        fd = self._descriptor.number
        try_lock(fd, WRITER)
        self.capacity = min(header.capacity, ring.MAX_CAPACITY, max(_affordable(fd), ring.MIN_CAPACITY))
        self.piece = ring.piece_bytes(self.capacity)
        self._is_memory = memory.is_memory(path)
        if helper and not self._has_memory(self.piece):
            self.capacity = min(self.capacity, SMALL_CAPACITY)
            self.piece = ring.piece_bytes(self.capacity)
        self.start = ring.start_bytes(self.capacity, self.piece)
        self.size = self.start + self.capacity // self.piece * self.piece
        os.ftruncate(fd, self.size)
        _reserve(fd, 0, self.start + self.piece)
        self.map = _mapped(fd, self.size)
        self.view = memoryview(self.map)
        self.words = self.view.cast("Q")
        self.view[: ring.HEADER_BYTES] = replace(header, capacity=self.capacity, piece=self.piece).pack()
        self._add_piece()

    def _add_piece(self) -> int:
        self.pieces += 1
        if len(self.generations) < self.pieces:
            self.generations.append(0)
        return self.pieces - 1

    @property
    def fd(self) -> int:
        """The descriptor, opened again if the program has closed it.

        Raises:
            OSError: it is closed, and the file has no name any more.
        """
        if self._descriptor is None or not self._descriptor.is_ours:
            with standard_streams_kept():
                found = Descriptor(os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW))
            if found.file != self._key:
                found.close()
                raise FileNotFoundError(errno.ENOENT, "another file has its name", self.path)
            try_lock(found.number, WRITER)
            self._descriptor = found
        return self._descriptor.number

    @property
    def is_unlinked(self) -> bool:
        """True once somebody has removed the file's name: what it holds is lost with the last process that has it."""
        try:
            return os.fstat(self.fd).st_nlink == 0
        except OSError:
            return True

    def base(self, index: int) -> int:
        """Where the piece with this index begins."""
        return self.start + index * self.piece

    def grow(self) -> int | None:
        """Reserve one piece more and return its index; None where the capacity or the share of the disk is used up."""
        after = (self.pieces + 1) * self.piece
        if after > self.size - self.start:
            return None
        try:
            fd = self.fd
            if not self._has_memory(self.piece):
                return None
            if after > _affordable(fd) + self.pieces * self.piece // FREE_SHARE:
                return None
            _reserve(fd, self.base(self.pieces), self.piece)
        except OSError:
            return None
        return self._add_piece()

    def _has_memory(self, size: int) -> bool:
        """Return True if the outbox may grow by *size* bytes, on a file system that is kept in memory."""
        return not self._is_memory or memory.has_room(size, memory.held_in(os.path.dirname(self.path) or ".") + size)

    def shrink(self) -> None:
        """Give back the disk space of every piece but the first, none of which is in use."""
        size = (self.pieces - 1) * self.piece
        if size:
            try:
                self.map.madvise(mmap.MADV_REMOVE, self.base(1), size)  # punches a hole into the file
            except (OSError, AttributeError):  # a file system, or a kernel, without holes
                return
            self.pieces = 1

    def store_meta(self, meta: Mapping[str, Any]) -> None:
        """Publish new metadata.

        Raises:
            ConfigError: it is too large.
        """
        try:
            where, slot, packed = ring.pack_meta(meta, self.words[ring.META])
        except ValueError as error:
            raise ConfigError(f"an outbox with {error}") from None
        self.view[where : where + len(packed)] = packed
        self.words[ring.META] = slot

    def store_dropped(self, dropped: Mapping[int, int]) -> None:
        """Publish how many records of each level were dropped; levels beyond the table's size are left out."""
        for index, (level, count) in zip(range(ring.DROPS_SLOTS), dropped.items(), strict=False):
            where = (ring.DROPS_OFFSET + index * 16) // 8
            self.words[where] = level & 0xFFFFFFFFFFFFFFFF
            self.words[where + 1] = count

    def close(self, *, delete: bool) -> None:
        """Say that nothing follows, and let go; with *delete* the file goes first."""
        if delete:
            try:
                os.unlink(self.path)
            except OSError:
                pass  # gone already, or the directory has become read-only: whoever recovers it finds nothing new in it
        self.words[ring.ENDED] = 1
        self.forget()

    def forget(self) -> None:
        """Close the descriptors and the mapping. In a forked child this takes nothing from the parent."""
        self.words.release()
        self.view.release()
        if sys.version_info >= (3, 13) or _has_size(self.map, self.size):
            self.map.close()
        else:
            _left.append(self.map)
        if self._descriptor is not None:
            self._descriptor.close()


_left: Final[list[mmap.mmap]] = []
"""Mappings whose own descriptor the program has closed: closing them would close what has its number now."""


def _has_size(mapped: mmap.mmap, size: int) -> bool:
    try:
        return mapped.size() == size
    except OSError:
        return False


def _mapped(fd: int, size: int) -> mmap.mmap:
    """Map the file, without a second descriptor where Python can do that: a program may close what it did not open."""
    if sys.version_info >= (3, 13):
        return mmap.mmap(fd, size, trackfd=False)
    return mmap.mmap(fd, size)


def _affordable(fd: int) -> int:
    """The share of the free disk space that an outbox may take, and no more than a file of this process may have."""
    found = os.fstatvfs(fd)
    share = found.f_bavail * found.f_frsize // FREE_SHARE
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return share if limit == resource.RLIM_INFINITY else min(share, limit - ring.PAGE_BYTES * 4)


if hasattr(os, "posix_fallocate"):
    _reserve = os.posix_fallocate
else:  # macOS

    def _reserve(fd: int, offset: int, size: int) -> None:
        """Reserve by writing zeros, which is all that is left."""
        written = 0
        while written < size:
            written += os.pwrite(fd, bytes(min(size - written, 1 << 20)), offset + written)
