"""Reading on while runs grow: what `tlogs tail`, `Job.tail` and the daemon's own output do."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Final

from tlogs.reading.cursor import Cursor, filter_for
from tlogs.reading.entry import Entry
from tlogs.reading.filters import Filter, FilterOptions, make_filter
from tlogs.reading.library import Library
from tlogs.reading.run import Run
from tlogs.reading.subscription import Subscription
from tlogs_shared.errors import CollectorUnavailable
from tlogs_shared.origin import StreamInfo
from tlogs_shared.protocol.messages import News
from tlogs_shared.storage.position import START, Position

__all__ = ["Follow", "Following", "follow"]

Shown = tuple[list[Entry], int]
"""Entries in their final order, and the corrected time up to which nothing older will follow."""

_FOR_EVER_NS: Final = 2**63 - 1
_IDLE_S: Final = 1.0
"""With nothing held back a reader waits this long for news before it looks whether it should end."""


def _ignore(text: str) -> None:
    """Say nothing."""


def follow(
    library: Library,
    run: Run | None,
    options: FilterOptions,
    count: int = 10,
    *,
    timeout: float = math.inf,
    is_over: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = _ignore,
) -> Follow:
    """The last *count* records of *run*, then what comes until it is over, for at most *timeout* seconds.

    Without a *run* it is every run of the library, each from where its collector began to write it, until the collector
    ends: each is in order, and they take turns. *is_over* ends it early, with what is stored by then.

    A collector that goes away is waited for, which is told to *say*: it may be restarted. After 10 s without it, this
    ends.

    Raises:
        TypeError, ConfigError: *options* cannot be used.
        CollectorUnavailable: the collector does not answer at the beginning.
    """
    # Wrong options are reported by the call, not by the first record.
    if run is not None:
        choice = filter_for(run, options)
    else:
        now = time.time_ns()
        make_filter(options, now, lambda: now)

    def choose(found: Run) -> Filter:
        return filter_for(found, options) if run is None else choice

    return Follow(library, run, choose, count, library.subscribe(run), time.monotonic() + timeout, is_over, say)


class Follow(Iterator[Shown]):
    """Runs that are followed; once there is nothing more, how that came.

    `has_ended` says that the run is over. `is_abandoned` says that its collector went away before that, and `gave_up`
    that it did not come back.
    """

    def __init__(
        self,
        library: Library,
        run: Run | None,
        choose: Callable[[Run], Filter],
        count: int,
        subscription: Subscription,
        deadline: float,
        is_over: Callable[[], bool],
        say: Callable[[str], None],
    ) -> None:
        self.has_ended = self.is_abandoned = self.gave_up = False
        self._library = library
        self._run = run
        self._choose = choose
        self._count = count
        self._subscription = subscription
        self._deadline = deadline
        self._is_over = is_over
        self._say = say
        self._followed: dict[str, Following] = {}
        self._shown = self._follow()

    def __next__(self) -> Shown:
        return next(self._shown)

    @property
    def streams(self) -> Collection[StreamInfo]:
        """What is known of the streams of the one run."""
        one = None if self._run is None else self._followed.get(self._run.name)
        return () if one is None else one.streams.values()

    def _follow(self) -> Iterator[Shown]:
        run, subscription, followed = self._run, self._subscription, self._followed
        over = was_away = False
        while not over and (left := self._deadline - time.monotonic()) > 0:
            news = subscription.wait(min(left, *(one.wait_s for one in followed.values()), _IDLE_S))
            if subscription.is_away and not was_away:
                self._say("the collector does not answer any more; waiting for it")
            was_away = subscription.is_away
            over = self._is_over() or (news is not None and news.closing)
            try:
                name = run.name if run is not None else news.run if news is not None else ""
                if name and name not in followed:
                    followed[name] = one = self._begin(name, news)
                    yield one.begin(self._count, news)
                for name, one in followed.items():
                    yield from one.step(news if news is not None and news.run == name else None)
            except CollectorUnavailable:
                continue  # what it did not send is asked for again, until the subscription says that it is gone
            self.has_ended = run is not None and followed[run.name].is_over
            self.is_abandoned = news is not None and news.closing and not self.has_ended
            self.gave_up = self.is_abandoned and subscription.is_away
            over = over or self.has_ended
        if over:
            for one in followed.values():
                yield from one.close()

    def _begin(self, name: str, news: News | None) -> Following:
        run = self._run if self._run is not None else self._library.open(name)
        begin = START
        if self._run is None and news is not None:
            begin = Position(news.begin_segment, news.begin_offset)
        return Following(Cursor(run, self._choose(run), begin), self._subscription.hold_s)


class Following:
    """A run that is read while it grows.

    A record waits until nothing older is still to come, which the collector's news say, and no longer than *hold_s*:
    a rank that has stopped must not keep the others' records back.
    """

    def __init__(self, cursor: Cursor, hold_s: float = 2.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.ended = self.is_over = False
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

    @property
    def streams(self) -> Mapping[bytes, StreamInfo]:
        """What is known of the run's streams."""
        return self._cursor.streams

    def begin(self, count: int, news: News | None) -> Shown:
        """The last *count* records of what is stored already."""
        if news is not None and news.live:  # of a run that has ended all is in its final order
            self._horizon = news.horizon_ns
        self._cursor.refresh()
        return self._cursor.merge.last(count, self._horizon or None), self._horizon

    def step(self, news: News | None) -> Iterator[Shown]:
        """The entries that can be shown now; *news* came since the last step."""
        now = self._clock()
        if news is not None:
            self._horizon = max(self._horizon, news.horizon_ns)
            self.is_over = not news.live and not news.closing
            self.ended = self.is_over or news.closing
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
