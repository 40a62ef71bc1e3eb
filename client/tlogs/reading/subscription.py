"""How a reader learns that there is more: from the collector, or by looking."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Protocol

from tlogs.reading.collector_run import Connection
from tlogs.reading.run import Run
from tlogs_shared.errors import CollectorUnavailable
from tlogs_shared.protocol.messages import News

__all__ = ["EVERY_RUN", "CollectorSubscription", "PollingSubscription", "Subscription"]

EVERY_RUN: Final = "*"
"""In place of a run's name: every run of the collector, those that are still to begin too."""

_KEEP_ALIVE_S: Final = 2.0
_GONE_S: Final = 10.0
"""A collector that was killed may be started again; whoever follows a run waits this long for that."""


class Subscription(Protocol):
    """News of a run, or of all runs of a library."""

    @property
    def hold_s(self) -> float:
        """How long a record may be held back for older ones of other ranks."""

    @property
    def is_away(self) -> bool:
        """Whether the collector does not answer at present; the last word then is that it stayed away."""

    def wait(self, timeout: float, /) -> News | None:
        """Block until there is news; return None after *timeout* seconds without."""


class CollectorSubscription:
    """News that a collector sends. It closes when the collector has been away for 10 s."""

    hold_s = 2.0
    """A rank that has stopped keeps the others' records back no longer than this."""

    def __init__(self, connection: Connection, run: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._connection = connection
        self._run = run
        self._clock = clock
        self._asked = self._heard = clock()
        self.is_away = False
        connection.follow(run)

    def wait(self, timeout: float, /) -> News | None:
        """Block until there is news; return None after *timeout* seconds without."""
        try:
            news = self._connection.news(min(timeout, _KEEP_ALIVE_S))
            if news is None and self._clock() - self._asked > _KEEP_ALIVE_S:
                self._asked = self._clock()
                self._connection.keep_alive()
                self._heard = self._asked
                self.is_away = False
        except CollectorUnavailable:
            news, self.is_away = None, True
        if news is not None:
            self._heard, self.is_away = self._clock(), False
        elif self._clock() - self._heard > _GONE_S:
            return News(self._run, 0, 0, 0, live=False, closing=True)
        return news


class PollingSubscription:
    """A run that is polled, as nobody announces new records."""

    hold_s = 0.5
    is_away = False

    def __init__(self, run: Run, period_s: float = 0.1, sleep: Callable[[float], None] = time.sleep) -> None:
        self._run = run
        self._period_s = period_s
        self._sleep = sleep
        self._looked = False

    def wait(self, timeout: float, /) -> News | None:
        """Look again after *timeout* seconds or the period, whichever is shorter; the first time at once."""
        if self._looked:
            self._sleep(min(timeout, self._period_s))
        self._looked = True
        return News(self._run.name, 0, 0, 0, self._run.is_live(), closing=False)
