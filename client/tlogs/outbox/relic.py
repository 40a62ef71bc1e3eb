"""A dead process's outbox as a supply of records for a forwarder, like a living one's, only that nothing is added."""

from __future__ import annotations

import time
from collections.abc import Mapping

from tlogs.outbox.dead import DeadOutbox
from tlogs.outbox.ring import Extent

__all__ = ["Relic"]


class Relic:
    """What a dead process left.

    Numbers that stood where the file is damaged cannot be supplied: once all before them is stored they count as
    acknowledged, and a collector that asks for them is told with a hello from where on there is more.
    """

    def __init__(self, dead: DeadOutbox) -> None:
        self._dead = dead
        self._head = dead.head
        self._acknowledged = dead.header.acknowledged
        self.missing = 0
        """How many numbers were passed over for that."""
        self._extents = dead.extents(self._acknowledged)
        self._due, self._next = self._acknowledged, next(self._extents, None)

    @property
    def head(self) -> int:
        """The number after the last record."""
        return self._head

    @property
    def acknowledged(self) -> int:
        """The number below which everything is stored elsewhere."""
        return self._acknowledged

    @property
    def low_ts(self) -> int:
        """Nothing is logged any more."""
        return time.time_ns()

    @property
    def oldest_unsent_ts(self) -> int | None:
        """What is brought in late holds nobody up: it is older than what has been shown."""
        return None

    @property
    def dropped(self) -> Mapping[int, int]:
        """What the process had no room for, counted by level."""
        return self._dead.header.dropped

    @property
    def unsent_bytes(self) -> int:
        """Not known, and nobody waits for it to grow."""
        return 0

    def cut(self, close_open: bool) -> Extent | None:
        """The next extent; what lies behind damage has to wait until all before it is stored."""
        extent = self._next
        first = self._head if extent is None else extent.first
        if first > self._due:
            if self._acknowledged < self._due:
                return None
            if self._acknowledged < first:
                self.missing += first - self._acknowledged
                self._acknowledged = first
        if extent is not None:
            self._due, self._next = extent.end, next(self._extents, None)
        return extent

    def rewind(self, watermark: int) -> None:
        """Hand out again from this number on."""
        self._extents = self._dead.extents(watermark)
        self._due, self._next = watermark, next(self._extents, None)

    def acknowledge(self, watermark: int) -> None:
        """Everything below this number is stored elsewhere."""
        self._acknowledged = max(self._acknowledged, watermark)
