"""How far another machine's clock is off, and how sure that is.

A heartbeat is stamped when it is sent (t0, rank's clock), received (t1, collector's), answered (t2, collector's) and
when the answer comes (t3, rank's), as NTP does it (RFC 5905, section 8). The offset is ((t1 - t0) + (t2 - t3)) / 2,
and half of the round trip bounds its error. The exchange with the smallest round trip of the last minute is believed.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

__all__ = ["ClockEstimate", "Moment"]

MEMORY_S: Final = 60.0
"""Older exchanges are forgotten: clocks drift by milliseconds in minutes."""


class ClockEstimate:
    """An estimate of the difference between the collector's clock and this one.

    >>> estimate = ClockEstimate()
    >>> estimate.add(0, 1_000, 1_100, 200, now=0.0)
    >>> estimate.best
    (950, 50)
    """

    def __init__(self) -> None:
        self._exchanges: deque[tuple[float, int, int]] = deque()

    def add(self, sent_ns: int, received_ns: int, replied_ns: int, got_ns: int, now: float) -> None:
        """Take in one exchange; times in nanoseconds, *now* in seconds. An impossible one is discarded."""
        round_trip = (got_ns - sent_ns) - (replied_ns - received_ns)
        if round_trip < 0 or replied_ns < received_ns:
            return
        offset = ((received_ns - sent_ns) + (replied_ns - got_ns)) // 2
        self._exchanges.append((now, round_trip, offset))
        while self._exchanges[0][0] < now - MEMORY_S:
            self._exchanges.popleft()

    @property
    def best(self) -> tuple[int, int] | None:
        """The offset and the bound of its error in nanoseconds, None before the first exchange."""
        if not self._exchanges:
            return None
        _, round_trip, offset = min(self._exchanges, key=lambda exchange: exchange[1])
        return offset, round_trip // 2


class Moment(NamedTuple):
    """Now, on both clocks: what pure code is told of the time."""

    s: float
    """Seconds on this process's monotonic clock: for waiting and for what ends."""
    ns: int
    """Nanoseconds since the epoch: for what people read and other machines compare."""
