"""A segment of a run, open for reading; offsets are those of positions."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from types import TracebackType

from tlogs_collector.store.disk import Disk
from tlogs_shared.errors import MessageError
from tlogs_shared.storage.batch import Header
from tlogs_shared.storage.position import Position
from tlogs_shared.storage.segment import FILE_HEADER_BYTES, THINNED_BASE, FileHeader, Scan, segment_name

__all__ = ["SegmentReader"]


class SegmentReader:
    """An open segment.

    Raises:
        OSError: it is not there, or cannot be read.
    """

    def __init__(self, disk: Disk, directory: str, number: int) -> None:
        self.number = number
        self._disk = disk
        self._file = disk.open(f"{directory}/{segment_name(number)}")
        self.size = disk.size(self._file)
        self.header: FileHeader | None
        try:
            self.header = FileHeader.unpack(self.read_file(FILE_HEADER_BYTES, 0))
        except MessageError:
            self.header = None  # its frames are found all the same

    def __enter__(self) -> SegmentReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._disk.close(self._file)

    @property
    def base(self) -> int:
        """What is added to an offset in the file to get a position's offset."""
        return self.header.base if self.header else 0

    def read_file(self, size: int, offset: int) -> bytes:
        """Bytes of the file; the offset is one in the file."""
        return self._disk.read(self._file, size, offset)

    def read(self, size: int, offset: int) -> bytes:
        """Bytes of the segment; the offset is a position's.

        Raises:
            OSError: the segment was thinned since the position was given, or cannot be read.
        """
        if (offset >= THINNED_BASE) != bool(self.base):
            raise FileNotFoundError(errno.ENOENT, "removed to save space")
        return self.read_file(size, offset - self.base)

    def scan(self, *, verify: bool = False) -> Scan:
        """The frames of the whole file; damage is passed over."""
        return Scan(self.read_file, self.size, verify=verify, skip=True)

    def frames(self, offset: int = 0) -> Iterator[tuple[Header, Position]]:
        """The frames from *offset* on, a position's; one from before the segment was thinned means its beginning."""
        start = max(offset - self.base, FILE_HEADER_BYTES)
        for frame in Scan(self.read_file, self.size, start, skip=True):
            yield frame.header, Position(self.number, frame.offset + self.base)
