"""What is sent of one stream: the records of its outbox, and behind the last one a record that tells of the end.

The process numbers its records as long as it lives. Once it has ended, what was behind its last record is ours: one
record, always with the same number, so that it is stored once also where several agents come to tell of one end.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from tlogs.outbox.reader import Reader
from tlogs.outbox.ring import Extent
from tlogs_shared.errors import ProtocolError

__all__ = ["Source"]


class Source:
    """The records of one stream."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.handed = reader.acknowledged
        """The number after the last record that was handed out."""
        self._last: Callable[[int], tuple[int, int, bytes]] | None = None
        self._is_over = False  # all of it is stored, and the record behind it too

    @property
    def head(self) -> int:
        """The number that the next record gets."""
        return self.reader.head + (self._last is not None)

    @property
    def acknowledged(self) -> int:
        """The number below which everything is stored elsewhere."""
        return self.head if self._is_over else self.reader.acknowledged

    @property
    def dropped(self) -> Mapping[int, int]:
        """Records that found no room, counted by level."""
        return self.reader.dropped

    @property
    def low_ts(self) -> int:
        """A time before which no record will follow."""
        return self.reader.low_ts

    @property
    def oldest_unsent_ts(self) -> int | None:
        """The time of the oldest record that was not handed out."""
        return self.reader.oldest_unsent_ts

    @property
    def last_ts(self) -> int:
        """The time of the last record of a process that has ended; 0 where there is none."""
        return self.reader.last_ts

    @property
    def is_sealed(self) -> bool:
        """True once the process has ended."""
        return self.reader.sealed

    @property
    def is_moving(self) -> bool:
        """True if there are records that were not handed out."""
        return self.handed < self.head

    @property
    def is_spent(self) -> bool:
        """True if all records of the outbox have been handed out, or were stored before."""
        return max(self.handed, self.reader.acknowledged) >= self.reader.head

    @property
    def is_gone(self) -> bool:
        """True if the outbox's file has no name any more: somebody has brought it in."""
        return os.fstat(self.reader.fd).st_nlink == 0

    def take(self) -> bool:
        """Become the one who sends from this outbox; return False while somebody else is."""
        if not self.reader.take():
            return False
        self.handed = max(self.handed, self.reader.acknowledged)
        return True

    def seal(self) -> None:
        """The process has ended: nothing follows."""
        self.reader.seal()

    def finish(self, last: Callable[[int], tuple[int, int, bytes]]) -> None:
        """Have *last* make the record behind all others when its turn comes, from the time of the one before it.

        It returns its time, its level and its bytes.
        """
        assert self.is_sealed
        self._last = last

    def cut(self, *, close_open: bool) -> Extent | None:
        """The next extent; with *close_open* also one that has not reached the size of a batch."""
        extent = self.reader.cut(close_open)
        if extent is not None:
            self.handed = extent.end
            return extent
        head = self.reader.head
        if self._last is None or self._is_over or not self.is_spent or self.handed > head:
            return None
        ts, level, packed = self._last(self.last_ts)
        self.handed = head + 1
        return Extent(head, 1, level, ts, ts, memoryview(packed))

    def rewind(self, watermark: int) -> None:
        """Hand out again from this number on.

        Raises:
            ProtocolError: it names a record that was never written.
        """
        if watermark > self.reader.head:
            self._end_beyond(watermark)
            return
        self.reader.rewind(watermark)
        self.handed = watermark

    def acknowledge(self, watermark: int) -> None:
        """Everything below this number is stored elsewhere.

        Raises:
            ProtocolError: it names a record that was never written.
        """
        head = self.reader.head
        if watermark > head:
            self._end_beyond(watermark)
        self.reader.acknowledge(min(watermark, head))

    def _end_beyond(self, watermark: int) -> None:
        """A number behind the last record: told of the end already, by us or by an agent before us."""
        if not self.is_sealed:
            head = self.reader.head
            raise ProtocolError(f"acknowledged below {watermark}, but the stream has only {head} records")
        self._is_over = True
        self.handed = self.head
