"""How a reader learns that there is more, and that nobody says so any longer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from tlogs.reading.collector_run import Connection
from tlogs.reading.local_run import LocalRun
from tlogs.reading.subscription import CollectorSubscription, PollingSubscription
from tlogs_shared.errors import CollectorUnavailable
from tlogs_shared.protocol.messages import News

NewRun = Callable[..., Any]


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_without_a_collector_the_directory_is_looked_at_until_its_owner_ends(new_run: NewRun) -> None:
    run = new_run()
    slept: list[float] = []
    subscription = PollingSubscription(LocalRun(run.path), period_s=0.1, sleep=slept.append)
    with run.live():
        for _ in range(2):
            found = subscription.wait(1.0)
            assert found is not None
            assert found.live
    found = subscription.wait(0.05)
    assert found is not None
    assert not found.live
    assert slept == [0.1, 0.05], "the first look is at once"


class Collector:
    """A collector that says what a test says."""

    def __init__(self) -> None:
        self.said: list[News | None] = []
        self.asked: list[str] = []
        self.is_there = True

    def follow(self, run: str | None) -> None:
        self.asked.append(f"follow {run}")

    def keep_alive(self) -> None:
        self.asked.append("keep alive")
        if not self.is_there:
            raise CollectorUnavailable("not there")

    def news(self, timeout: float) -> News | None:
        return self.said.pop(0) if self.said else None


def test_a_collector_that_was_killed_may_come_back_for_a_while() -> None:
    collector, clock = Collector(), Clock()
    subscription = CollectorSubscription(cast(Connection, collector), "run1", clock)
    news = News("run1", 0, 0, 5, live=True, closing=False)
    assert collector.asked == ["follow run1"]
    clock.now = 20.0
    assert subscription.wait(1.0) is None, "silence alone is no end: the collector answers"
    assert collector.asked[-1] == "keep alive"
    assert not subscription.is_away
    collector.is_there = False
    clock.now = 29.0
    assert subscription.wait(1.0) is None
    assert subscription.is_away
    collector.is_there = True
    clock.now = 31.5
    assert subscription.wait(1.0) is None
    assert not subscription.is_away
    collector.said.append(news)
    assert subscription.wait(1.0) == news
    collector.is_there = False
    clock.now = 41.0
    assert subscription.wait(1.0) is None
    clock.now = 42.0
    found = subscription.wait(1.0)
    assert found is not None
    assert found.closing
