"""How reading goes on while a run grows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tlogs.reading.cursor import Cursor
from tlogs.reading.entry import Entry
from tlogs.reading.follow import Following, follow
from tlogs.reading.local_run import LocalRun
from tlogs.reading.run import Run
from tlogs_shared.end import End
from tlogs_shared.errors import CollectorUnavailable, ConfigError
from tlogs_shared.protocol.messages import News
from tlogs_shared.storage.batch import Header
from tlogs_shared.storage.position import Position

START_NS = 1_700_000_000_000_000_000
NewRun = Callable[..., Any]


def texts(entries: Sequence[Entry]) -> list[str]:
    return [entry[4].template for entry in entries]


def at(ms: int) -> int:
    return START_NS + ms * 1_000_000


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def news(horizon_ms: int, *, live: bool = True, closing: bool = False) -> News:
    return News("run1", 0, 0, at(horizon_ms), live, closing)


def begun(shown: tuple[list[Entry], int]) -> list[str]:
    return texts(shown[0])


def stepped(following: Following, found: News | None) -> list[str]:
    return [text for entries, _ in following.step(found) for text in texts(entries)]


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_record_is_shown_once_nothing_older_can_come(new_run: NewRun, clock: Clock) -> None:
    run = new_run()
    zero, one = run.stream(0), run.stream(1)
    run.batch(zero, (1, "a"), (4, "d"))
    following = Following(Cursor(LocalRun(run.path)), hold_s=2.0, clock=clock)
    assert begun(following.begin(10, news(2))) == ["a"]
    assert stepped(following, None) == []
    run.batch(one, (3, "c"))
    assert stepped(following, news(3)) == ["c"]
    run.batch(zero, (6, "f"))
    run.batch(one, (5, "e"))
    assert stepped(following, news(6)) == ["d", "e", "f"]
    assert following.wait_s == 1.0
    assert stepped(following, news(6, live=False)) == []
    assert following.ended


def test_a_rank_that_has_stopped_keeps_the_others_back_no_longer_than_the_hold(new_run: NewRun, clock: Clock) -> None:
    run = new_run()
    stream = run.stream(0)
    following = Following(Cursor(LocalRun(run.path)), hold_s=2.0, clock=clock)
    following.begin(10, news(0))
    run.batch(stream, (5, "a"))
    assert stepped(following, news(0)) == []
    clock.now = 1.5
    run.batch(stream, (6, "b"))
    assert stepped(following, news(0)) == []
    assert following.wait_s == 0.5
    clock.now = 2.0
    assert stepped(following, None) == ["a"]
    clock.now = 3.5
    assert stepped(following, None) == ["b"]


def test_only_the_last_records_are_shown_of_what_was_stored_before(new_run: NewRun, clock: Clock) -> None:
    run = new_run()
    stream = run.stream(0)
    run.batch(stream, *((ms, str(ms)) for ms in range(20)))
    following = Following(Cursor(LocalRun(run.path)), clock=clock)
    assert begun(following.begin(3, news(17))) == ["15", "16", "17"]
    assert stepped(following, news(100)) == ["18", "19"]


def test_at_the_end_everything_is_shown_whatever_the_horizon(new_run: NewRun, clock: Clock) -> None:
    run = new_run()
    stream = run.stream(0)
    following = Following(Cursor(LocalRun(run.path)), clock=clock)
    following.begin(0, news(0))
    run.batch(stream, (5, "a"))
    assert stepped(following, news(0, closing=True)) == ["a"]
    assert following.ended


def test_a_stream_that_comes_later_is_named(new_run: NewRun, clock: Clock) -> None:
    run = new_run()
    following = Following(Cursor(LocalRun(run.path)), clock=clock)
    following.begin(0, news(0))
    run.batch(run.stream(3), (5, "a"))
    entries = [entry for found, _ in following.step(news(9)) for entry in found]
    assert [entry[3].label for entry in entries] == ["rank3"]


def test_a_batch_that_is_half_written_is_read_when_it_is_whole(new_run: NewRun, clock: Clock) -> None:
    run = new_run()
    stream = run.stream(0)
    run.batch(stream, (1, "a"))
    size = (segment := next(run.path.glob("segment-*"))).stat().st_size
    run.batch(stream, (2, "b"))
    whole = segment.read_bytes()
    os.truncate(segment, size + 30)
    following = Following(Cursor(LocalRun(run.path)), clock=clock)
    assert begun(following.begin(10, news(100))) == ["a"]
    segment.write_bytes(whole)
    assert stepped(following, news(100)) == ["b"]


# The whole.


class Library:
    """A directory of runs, with news that a test gives one after the other."""

    def __init__(self, directory: Path, *said: News | None) -> None:
        self.directory = directory
        self.where = f"in {directory}"
        self.said = list(said)
        self.hold_s = 2.0
        self.is_away = False
        self.refused: list[str] = []

    def runs(self) -> list[LocalRun]:
        raise AssertionError("nobody needs the list")

    def open(self, text: str, /) -> LocalRun:
        return LocalRun(self.directory / text)

    def subscribe(self, run: Run | None, /) -> Library:
        return self

    def wait(self, timeout: float, /) -> News | None:
        return self.said.pop(0)


def shown(library: Library, run: Run | None, **options: Any) -> list[str]:
    return [text for entries, _ in follow(library, run, {}, **options) for text in texts(entries)]


def test_one_run_is_followed_until_it_ends(new_run: NewRun) -> None:
    run = new_run()
    run.batch(run.stream(0), *((ms, str(ms)) for ms in range(5)))
    library = Library(run.path.parent, news(2), None, news(3), news(9, live=False), news(10))
    assert shown(library, LocalRun(run.path), count=2) == ["1", "2", "3", "4"]
    assert library.said == [news(10)]


def test_a_run_that_has_ended_is_shown_at_once(new_run: NewRun) -> None:
    run = new_run()
    run.batch(run.stream(0), *((ms, str(ms)) for ms in range(5)))
    assert shown(Library(run.path.parent, news(0, live=False)), LocalRun(run.path), count=2) == ["3", "4"]


def test_every_run_is_followed_from_where_its_collector_began_until_that_ends(new_run: NewRun) -> None:
    one, two = new_run("one"), new_run("two")
    one.batch(one.stream(0), (1, "before"))
    begun = (one.path / "segment-00000001.tlf").stat().st_size
    one.batch(one.stream(0), (2, "one"))
    two.batch(two.stream(1), (3, "two"))
    news_of_one = News("one", 1, begun + 1, at(5), True, False, 1, begun)
    ended = News("two", 1, 1, at(3), False, False)
    library = Library(one.path.parent, None, news_of_one, ended, None, News("", 0, 0, 0, False, True))
    found = follow(library, None, {})
    assert [text for entries, _ in found for text in texts(entries)] == ["one", "two"]
    assert library.said == []


def test_a_collector_that_is_away_for_a_moment_is_asked_again(new_run: NewRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = new_run()
    stream = run.stream(0)
    run.batch(stream, (1, "a"))
    source = LocalRun(run.path)
    library = Library(run.path.parent, news(1), news(2), None, news(3, live=False))
    found = follow(library, source, {})
    assert begun(next(found)) == ["a"]
    run.batch(stream, (2, "b"))
    whole = source.frames
    failures = iter([True, True])

    def frames(position: Position) -> Iterator[tuple[Header, Position]]:
        if next(failures, False):
            raise CollectorUnavailable("restarting")
        return whole(position)

    monkeypatch.setattr(source, "frames", frames)
    assert [text for entries, _ in found for text in texts(entries)] == ["b"]


def test_what_became_of_the_run_is_known_at_the_end(new_run: NewRun) -> None:
    run = new_run()
    run.stream(0, end=End("finished"))
    found = follow(Library(run.path.parent, news(1), news(2, live=False)), LocalRun(run.path), {})
    assert list(found)
    assert (found.has_ended, found.is_abandoned, found.gave_up) == (True, False, False)
    assert [info.end for info in found.streams] == [End("finished")]
    every = follow(Library(run.path.parent, news(1), news(2, closing=True)), None, {})
    assert list(every)
    assert list(every.streams) == []


@pytest.mark.parametrize("away", [False, True])
def test_a_collector_that_ends_before_its_run_abandons_it(new_run: NewRun, away: bool) -> None:
    run = new_run()
    run.stream(0)
    said: list[str] = []
    library = Library(run.path.parent, news(1), None, None, news(0, live=False, closing=True))
    found = follow(library, LocalRun(run.path), {}, say=said.append)
    next(found)
    library.is_away = away
    assert list(found)
    assert (found.has_ended, found.is_abandoned, found.gave_up) == (False, True, away)
    assert said == (["the collector does not answer any more; waiting for it"] if away else [])


def test_a_reader_may_end_it_early_with_what_is_stored(new_run: NewRun) -> None:
    run = new_run()
    run.batch(run.stream(0), (1, "a"), (2, "b"))
    library = Library(run.path.parent, news(1), None)
    ends = iter([False, True])
    assert shown(library, LocalRun(run.path), is_over=lambda: next(ends)) == ["a", "b"]
    assert shown(Library(run.path.parent), LocalRun(run.path), timeout=0.0) == []


@pytest.mark.parametrize("named", [True, False])
def test_what_is_wrong_with_the_filters_is_said_at_once(new_run: NewRun, named: bool) -> None:
    run = new_run()
    with pytest.raises(ConfigError, match="level 'loud'"):
        follow(Library(run.path.parent), LocalRun(run.path) if named else None, {"level": "loud"})
