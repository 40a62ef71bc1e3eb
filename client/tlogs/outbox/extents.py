"""What is on its way: the extents of an outbox that are closed and not yet acknowledged."""

from __future__ import annotations

from collections import deque
from itertools import chain

from tlogs.outbox.ring import Extent, scan

__all__ = ["Extents"]


class Extents:
    """Closed extents in order: those that were handed out, and behind them those that wait."""

    __slots__ = ("handed", "waiting")

    def __init__(self) -> None:
        self.handed: deque[Extent] = deque()
        self.waiting: deque[Extent] = deque()

    @property
    def waiting_bytes(self) -> int:
        """The size of those that wait."""
        return sum(len(extent.view) for extent in self.waiting)

    def take(self) -> Extent | None:
        """Hand out the next."""
        if not self.waiting:
            return None
        self.handed.append(self.waiting.popleft())
        return self.handed[-1]

    def rewind(self, watermark: int) -> None:
        """Let those wait again that end above *watermark*; one that it falls into is split there."""
        handed: deque[Extent] = deque()
        waiting: deque[Extent] = deque()
        for extent in chain(self.handed, self.waiting):
            if extent.end <= watermark:
                handed.append(extent)
            elif extent.first >= watermark:
                waiting.append(extent)
            else:
                before, after = _split(extent, watermark)
                handed.append(before)
                waiting.extend(after)
        self.handed, self.waiting = handed, waiting

    def release(self, watermark: int) -> None:
        """Forget those that end below *watermark* or at it."""
        for extents in (self.handed, self.waiting):
            while extents and extents[0].end <= watermark:
                extents.popleft()


def _split(extent: Extent, watermark: int) -> tuple[Extent, list[Extent]]:
    """The part of *extent* below *watermark*, and what follows it."""
    after = list(scan(extent.view, extent.first, watermark=watermark))
    view = extent.view[: len(extent.view) - sum(len(part.view) for part in after)]
    count = watermark - extent.first
    return Extent(extent.first, count, extent.level, extent.first_ts, after[0].first_ts, view), after
