"""Opening the outboxes that dead processes left behind, with what faulthandler wrote beside them."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from functools import cached_property
from logging import CRITICAL
from typing import Final

from tlogs.outbox import ring
from tlogs.outbox.file import CRASH_LOGGER, SIDE_SUFFIX, held, is_held
from tlogs.outbox.ring import Extent, FileHeader
from tlogs_shared.errors import MessageError
from tlogs_shared.storage.record import Fields, pack, unpack

__all__ = ["DeadOutbox", "open_dead"]

MAX_FAULT_BYTES: Final = 64 * 1024
"""The stacks of a hundred threads are smaller."""


class DeadOutbox:
    """An outbox whose process has ended, held by this process until it is closed."""

    def __init__(self, path: str, fd: int, header: FileHeader) -> None:
        self.path = path
        self.header = header
        self._fd = fd
        found = os.fstat(fd)
        self._key = (found.st_dev, found.st_ino)
        held.add(self._key)

    def extents(self, watermark: int | None = None) -> Iterator[Extent]:
        """The records from *watermark* on, by default from what was acknowledged; one piece in memory at a time.

        A number that is missing between two extents stood where the file is damaged. What faulthandler wrote follows
        as one more record.
        """
        number = self.header.acknowledged if watermark is None else watermark
        last_ts = 0
        pieces = self._pieces()
        for index, (first, base, end) in enumerate(pieces):
            following = pieces[index + 1][0] if index + 1 < len(pieces) else None
            if following is not None and following <= number:
                continue  # everything in it is stored elsewhere
            data = memoryview(os.pread(self._fd, end - base, base))[ring.PIECE_HEADER_BYTES :]
            for extent in ring.scan(data, first, watermark=number, after_ts=last_ts):
                yield extent
                number, last_ts = extent.end, extent.last_ts
        if number <= self._records_end and (packed := self._fault(last_ts)):
            ts = unpack(packed).ts
            yield Extent(self._records_end, 1, CRITICAL, ts, ts, memoryview(packed))

    @property
    def head(self) -> int:
        """The number after the last record."""
        return self._records_end + bool(self._fault(0))

    @cached_property
    def _records_end(self) -> int:
        end = self.header.acknowledged
        for first, base, stop in self._pieces()[-1:]:
            data = memoryview(os.pread(self._fd, stop - base, base))[ring.PIECE_HEADER_BYTES :]
            end = max([end, first, *(extent.end for extent in ring.scan(data, first))])
        return end

    def _fault(self, last_ts: int) -> bytes:
        """What faulthandler wrote, as a record; empty where it wrote nothing."""
        try:
            fd = os.open(self.path + SIDE_SUFFIX, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return b""
        try:
            text = os.pread(fd, MAX_FAULT_BYTES, 0).decode("utf-8", "replace").strip()
            written = os.fstat(fd).st_mtime_ns
        finally:
            os.close(fd)
        if not text:
            return b""
        template, _, stacks = text.partition("\n")
        ts = max(last_ts, written, 1 << 32)
        return pack(Fields(ts, CRITICAL, CRASH_LOGGER, template, None, None, "", 0, "", "", {"exc": stacks.strip()}))

    def _pieces(self) -> list[tuple[int, int, int]]:
        """Number of the first record, begin and end in the file of each piece that holds records, oldest first."""
        size, found = self.header.piece, []
        for base in range(ring.START_BYTES, os.fstat(self._fd).st_size - ring.PIECE_HEADER_BYTES, size):
            header = ring.read_piece_header(os.pread(self._fd, ring.PIECE_HEADER_BYTES, base))
            if header is not None and base + ring.PIECE_HEADER_BYTES < header[1] <= base + size:
                found.append((header[0], base, header[1]))
        return sorted(found)

    def close(self) -> None:
        """Let go of the file, which stays."""
        held.discard(self._key)
        os.close(self._fd)

    def delete(self) -> None:
        """Remove the file, and let go of it."""
        for path in (self.path, self.path + SIDE_SUFFIX):
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass
        self.close()


def open_dead(path: str | os.PathLike[str]) -> DeadOutbox | None:
    """Open an outbox whose process has ended, and hold it; None where it is alive, not ours, or no outbox.

    Raises:
        OSError: the file cannot be opened.
    """
    path = os.fspath(path)
    if is_held(os.lstat(path)):
        return None  # by this process: closing a second descriptor of it would give up the lock
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        found = os.fstat(fd)
        if stat.S_ISREG(found.st_mode) and found.st_uid == os.getuid():
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(found, os.lstat(path)):  # else somebody was quicker
                return DeadOutbox(path, fd, FileHeader.unpack(os.pread(fd, ring.START_BYTES, 0)))
    except (BlockingIOError, PermissionError, FileNotFoundError, MessageError):
        pass  # locked, so it is alive; or deleted meanwhile; or no outbox
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None
