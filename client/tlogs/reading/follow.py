"""Reading on while runs grow: what `tlogs tail`, `Job.tail` and the daemon's own output do."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from tlogs.reading.cursor import Cursor, filter_for
from tlogs.reading.entry import Entry
from tlogs.reading.filters import Filter, FilterOptions, make_filter
from tlogs.reading.library import Library
from tlogs.reading.run import Run
from tlogs.reading.subscription import Subscription
from tlogs_shared.errors import CollectorUnavailable
from tlogs_shared.protocol.messages import News
from tlogs_shared.storage.position import START, Position

__all__ = ["Following", "follow"]

Shown = tuple[list[Entry], int]
"""Entries in their final order, and the corrected time up to which nothing older will follow."""

_FOR_EVER_NS: Final = 2**63 - 1
_IDLE_S: Final = 1.0
"""With nothing held back a reader waits this long for news before it looks whether it should end."""


def follow(
    library: Library,
    run: Run | None,
    options: FilterOptions,
    count: int = 10,
    *,
    timeout: float = math.inf,
    is_over: Callable[[], bool] = lambda: False,
) -> Iterator[Shown]:
    """The last *count* records of *run*, then what comes while it is live, for at most *timeout* seconds.

    Without a *run* it is every run of the library, each from where its collector began to write it, until the collector
    ends: each is in order, and they take turns. *is_over* ends it early, with what is stored by then.

    A collector that goes away is waited for: it may be restarted. After 10 s without it, this ends.

    Raises:
        TypeError, ConfigError: *options* cannot be used.
        CollectorUnavailable: the collector does not answer at the beginning.
    """
    # What is wrong with the options is said by the call, not by the first record.
    if run is not None:
        choice = filter_for(run, options)
    else:
        now = time.time_ns()
        make_filter(options, now, lambda: now)

    def choose(found: Run) -> Filter:
        return filter_for(found, options) if run is None else choice

    subscription = library.subscribe(run)
    return _follow(library, run, choose, count, subscription, time.monotonic() + timeout, is_over)


def _follow(
    library: Library,
    run: Run | None,
    choose: Callable[[Run], Filter],
    count: int,
    subscription: Subscription,
    deadline: float,
    is_over: Callable[[], bool],
) -> Iterator[Shown]:
    followed: dict[str, Following] = {}
    over = False
    while not over and (left := deadline - time.monotonic()) > 0:
        news = subscription.wait(min(left, *(one.wait_s for one in followed.values()), _IDLE_S))
        over = is_over() or (news is not None and news.closing)
        try:
            name = run.name if run is not None else news.run if news is not None else ""
            if name and name not in followed:
                begun = run if run is not None else library.open(name)
                begin = START if run is not None or news is None else Position(news.begin_segment, news.begin_offset)
                one = Following(Cursor(begun, choose(begun), begin), subscription.hold_s)
                first = one.begin(count, news)
                followed[name] = one
                yield first
            for name, one in followed.items():
                yield from one.step(news if news is not None and news.run == name else None)
        except CollectorUnavailable:
            continue  # what it did not send is asked for again, until the subscription says that it is gone
        over = over or (run is not None and followed[run.name].ended)
    if over:
        for one in followed.values():
            yield from one.close()


class Following:
    """A run that is read while it grows.

    A record waits until nothing older is still to come, which the collector's news say, and no longer than *hold_s*:
    a rank that has stopped must not keep the others' records back.
    """

    def __init__(self, cursor: Cursor, hold_s: float = 2.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.ended = False
        self._cursor = cursor
        self._hold_s = hold_s
        self._clock = clock
        self._horizon = 0
        self._end: Position | None = None
        self._stale = True
        self._held: deque[tuple[float, int]] = deque()

    @property
    def wait_s(self) -> float:
        """How long nothing need be done unless there is news."""
        if not self._held:
            return _IDLE_S
        since, _ = self._held[0]
        return min(max(since + self._hold_s - self._clock(), 0.0), _IDLE_S)

    def begin(self, count: int, news: News | None) -> Shown:
        """The last *count* records of what is stored already."""
        if news is not None and news.live:  # of a run that has ended all is in its final order
            self._horizon = news.horizon_ns
        self._cursor.refresh()
        return self._cursor.merge.last(count, self._horizon or None), self._horizon

    def step(self, news: News | None) -> Iterator[Shown]:
        """What can be shown now; *news* came since the last step."""
        now = self._clock()
        if news is not None:
            self._horizon = max(self._horizon, news.horizon_ns)
            self.ended = not news.live or news.closing
            end = Position(news.segment, news.offset)
            self._stale = self._stale or end == START or end != self._end
            self._end = end
        elif self.ended:
            return
        if self._stale:
            self._cursor.refresh()
            self._stale = False
        if self.ended:
            yield from self.close()
            return
        merge, held = self._cursor.merge, self._held
        newest = merge.newest
        if newest > self._horizon and (not held or newest > held[-1][1]):
            held.append((now, newest))
        while held:
            since, until = held[0]
            if until > self._horizon and since + self._hold_s > now:
                break
            self._horizon = max(self._horizon, until)
            held.popleft()
        for entries in merge.take(self._horizon):
            until, *_ = entries[-1]
            yield entries, until
        yield [], self._horizon

    def close(self) -> Iterator[Shown]:
        """All that is left."""
        self._held.clear()
        try:
            self._cursor.refresh()
            for entries in self._cursor.merge.take():
                until, *_ = entries[-1]
                yield entries, until
        except CollectorUnavailable:
            pass  # it ended before it could be asked for the rest
        yield [], _FOR_EVER_NS
