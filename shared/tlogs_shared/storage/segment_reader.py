"""A segment that can be read, whoever opened its file: a reader of stored runs, or the collector."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator

from tlogs_shared.errors import MessageError
from tlogs_shared.storage.batch import Header
from tlogs_shared.storage.layout import segment_name
from tlogs_shared.storage.position import Position
from tlogs_shared.storage.segment import FILE_HEADER_BYTES, THINNED_BASE, Read, Scan, SegmentHeader, unpack_mark

__all__ = ["SegmentReader"]


class SegmentReader:
    """A segment, read through *read_file*; *size* returns how large its file is now.

    Offsets are those of positions. `header` is None where the file header is damaged; the frames are found all the
    same.
    """

    def __init__(self, number: int, read_file: Read, size: Callable[[], int]) -> None:
        self.number = number
        self.read_file = read_file
        self.size = size
        self.header: SegmentHeader | None
        beginning = read_file(FILE_HEADER_BYTES, 0)
        self.mark = unpack_mark(beginning)
        try:
            self.header = SegmentHeader.unpack(beginning)
        except MessageError:
            self.header = None

    @property
    def base(self) -> int:
        """Added to an offset in the file to get a position's offset."""
        return self.header.base if self.header else 0

    def holds(self, offset: int) -> bool:
        """Whether *offset* is one in this file, not in what it was before or after it was thinned."""
        return (offset >= THINNED_BASE) == bool(self.base)

    def read(self, size: int, offset: int) -> bytes:
        """Bytes of the segment.

        Raises:
            FileNotFoundError: the segment was thinned since the offset was given.
        """
        if not self.holds(offset):
            raise FileNotFoundError(errno.ENOENT, "removed to save space", segment_name(self.number))
        return self.read_file(size, offset - self.base)

    def scan(self, offset: int = 0, *, verify: bool = False) -> Scan:
        """The frames from *offset* on; damage is skipped.

        An offset from before the segment was thinned means its beginning: all of what is left is gone through again.
        """
        return Scan(self.read_file, self.size(), max(offset - self.base, FILE_HEADER_BYTES), verify=verify, skip=True)

    def place(self, scan: Scan) -> Iterator[tuple[Header, Position]]:
        """The frames of *scan*, each with its position."""
        for frame in scan:
            yield frame.header, Position(self.number, frame.offset + self.base)
