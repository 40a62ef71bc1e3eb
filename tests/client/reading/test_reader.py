"""Which run is read, what of it, and how reading goes on while the run grows."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tlogs.reading.archive import RunArchive
from tlogs.reading.entry import Entry
from tlogs.reading.reader import Following, Reading, choose_run, directory_of_runs, end_of, make_filter, read, runs
from tlogs.reading.source import RemoteSource, after, polled, told
from tlogs_shared.errors import CollectorUnavailable, ConfigError, MessageError
from tlogs_shared.protocol.messages import News
from tlogs_shared.storage.batch import Header
from tlogs_shared.storage.position import Position

START_NS = 1_700_000_000_000_000_000
NewRun = Callable[..., Any]


def texts(entries: Sequence[Entry]) -> list[str]:
    return [entry[4].template for entry in entries]


def at(ms: int) -> int:
    return START_NS + ms * 1_000_000


# Choosing a run.


@pytest.fixture
def three(new_run: NewRun) -> Path:
    for number, name in enumerate(["20260101-a", "20260102-b", "20260103-c"]):
        new_run(name, created_ns=number + 1)
    path: Path = new_run("elsewhere", created_ns=0).path
    return path.parent


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("latest", "20260103-c"),
        ("latest~0", "20260103-c"),
        ("latest~1", "20260102-b"),
        ("latest~3", "elsewhere"),
        ("20260101-a", "20260101-a"),
        ("else", "elsewhere"),
        ("20260102", "20260102-b"),
    ],
)
def test_a_run_is_meant_by_its_name_its_beginning_or_its_place(three: Path, text: str, name: str) -> None:
    assert choose_run(text, three).name == name


def test_a_run_is_meant_by_its_path(three: Path) -> None:
    assert choose_run(f"{three}/elsewhere", Path("/nowhere")).name == "elsewhere"


@pytest.mark.parametrize("text", ["2026", "nope", "latest~4", "", "/nowhere/at/all", "./"])
def test_what_means_no_run_or_several_is_answered_with_what_there_is(
    three: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(three)
    with pytest.raises(ConfigError, match=r"20260103-c|expected the directory of a run") as caught:
        choose_run(text, three)
    assert "\n" not in str(caught.value)


def test_where_there_are_no_runs_the_answer_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"no runs in {tmp_path}/none.*--dir"):
        choose_run("latest", tmp_path / "none")


def test_a_live_run_is_the_latest_even_if_it_began_earlier(new_run: NewRun) -> None:
    old, new = new_run("old", created_ns=1), new_run("new", created_ns=2)
    with old.live():
        assert choose_run("latest", new.path.parent).name == "old"
        assert [run.name for run in runs(new.path.parent)] == ["old", "new"]
    assert choose_run("latest", new.path.parent).name == "new"


def test_runs_are_looked_for_where_the_environment_says() -> None:
    assert directory_of_runs({"TLOGS_DIR": "/data/runs"}) == Path("/data/runs")
    assert directory_of_runs({}) == Path("tlogs-runs")


# Reading.


def test_read_gives_the_records_of_a_run_in_order(new_run: NewRun) -> None:
    run = new_run()
    one, two = run.stream(1), run.stream(0)
    run.batch(one, (1, "a"), (5, "d"))
    run.batch(two, (2, "b"), (3, "c"), levelno=30)
    found = list(read(dir=run.path.parent))
    assert [(record.rank, record.seq, record.message) for record in found] == [
        (1, 0, "a"),
        (0, 0, "b"),
        (0, 1, "c"),
        (1, 1, "d"),
    ]
    assert found[0].run == "run1"
    assert [record.message for record in read("run1", dir=run.path.parent, level="WARNING", ranks="0")] == ["b", "c"]


def test_read_says_what_is_wrong_before_the_first_record_is_asked_for(new_run: NewRun) -> None:
    run = new_run()
    with pytest.raises(ConfigError, match="level 'loud'"):
        read(dir=run.path.parent, level="loud")
    with pytest.raises(ConfigError, match="no run 'nope'"):
        read("nope", dir=run.path.parent)
    with pytest.raises(TypeError, match="levle"):
        read(dir=run.path.parent, levle="INFO")


@pytest.mark.parametrize("wanted", [{"stream": "stdlog"}, {"attempt": "first"}, {"attempt": "-1"}])
def test_a_filter_that_cannot_be_used_is_refused(wanted: dict[str, Any]) -> None:
    ((name, value),) = wanted.items()
    with pytest.raises(ConfigError, match=f"{name} '{value}': expected"):
        make_filter(**wanted)


def test_a_time_of_day_is_one_near_the_end_of_the_run(new_run: NewRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = new_run()
    run.batch(run.stream(0), (0, "a"), (3_600_000, "b"))
    with RunArchive(run.path) as archive:
        choice = make_filter(since="2023-11-14T22:30:00+00:00", end_ns=lambda: end_of(archive))
        assert texts([entry for found in Reading(archive, choice).whole() for entry in found]) == ["b"]
        assert end_of(archive) == at(3_600_000)


def test_what_is_not_in_the_store_is_said(new_run: NewRun) -> None:
    run = new_run()
    stream = run.stream(3)
    run.batch(stream, (1, "a"))
    run.batch(stream, (2, "b"), skip=5)
    reading = Reading(RunArchive(run.path))
    assert texts([entry for found in reading.whole() for entry in found]) == ["a", "b"]
    assert reading.notes == ["5 records of rank3 are not in the store (lost, damaged or removed)"]


def test_a_run_at_a_glance(new_run: NewRun) -> None:
    run = new_run()
    for rank in (0, 1):
        run.batch(run.stream(rank, dropped={10: 3}, head=2, end="bye"), (rank, "a"), (500 + rank, "b"))
    run.batch(run.stream(0, 77, helper="DataLoader0", head=1, end="bye"), (2, "c"))
    run.batch(run.stream(None, head=4, end="gone"), (3, "d"))
    (found,) = runs(run.path.parent)
    assert (found.name, found.live, found.ranks, found.records, found.dropped, found.lost) == (
        "run1",
        False,
        2,
        6,
        6,
        3,
    )
    assert found.asdict()["start"] == "2023-11-14T22:13:20.000000000Z"
    assert found.asdict()["duration_s"] == 0.501
    assert found.bytes == sum(path.stat().st_size for path in run.path.iterdir())


# Following.


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def news(horizon_ms: int, *, live: bool = True, closing: bool = False) -> News:
    return News("run1", 0, 0, at(horizon_ms), live, closing)


def stepped(following: Following, found: News | None) -> list[str]:
    return [text for entries, _ in following.step(found) for text in texts(entries)]


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_record_is_shown_once_nothing_older_can_come(new_run: NewRun, clock: Clock) -> None:
    run = new_run()
    zero, one = run.stream(0), run.stream(1)
    run.batch(zero, (1, "a"), (4, "d"))
    following = Following(Reading(RunArchive(run.path)), hold_s=2.0, clock=clock)
    assert texts(following.begin(10, news(2))) == ["a"]
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
    following = Following(Reading(RunArchive(run.path)), hold_s=2.0, clock=clock)
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
    following = Following(Reading(RunArchive(run.path)), clock=clock)
    assert texts(following.begin(3, news(17))) == ["15", "16", "17"]
    assert stepped(following, news(100)) == ["18", "19"]


def test_at_the_end_everything_is_shown_whatever_the_horizon(new_run: NewRun, clock: Clock) -> None:
    run = new_run()
    stream = run.stream(0)
    following = Following(Reading(RunArchive(run.path)), clock=clock)
    following.begin(0, news(0))
    run.batch(stream, (5, "a"))
    assert stepped(following, news(0, closing=True)) == ["a"]
    assert following.ended


def test_a_stream_that_comes_later_is_named(new_run: NewRun, clock: Clock) -> None:
    run = new_run()
    following = Following(Reading(RunArchive(run.path)), clock=clock)
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
    following = Following(Reading(RunArchive(run.path)), clock=clock)
    assert texts(following.begin(10, news(100))) == ["a"]
    segment.write_bytes(whole)
    assert stepped(following, news(100)) == ["b"]


# Watching.


def test_without_a_collector_the_directory_is_looked_at_until_its_owner_ends(new_run: NewRun) -> None:
    run = new_run()
    slept: list[float] = []
    watch = polled(RunArchive(run.path), period_s=0.1, sleep=slept.append)
    with run.live():
        found = watch(1.0)
        assert found is not None
        assert found.live
    found = watch(0.05)
    assert found is not None
    assert not found.live
    assert slept == [0.1, 0.05]


class Collector:
    """A collector that has one run, seen over a connection; it answers from the run's files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.said: list[News | None] = []
        self.asked: list[str] = []
        self.page_bytes = 1 << 30
        self.is_there = True

    def follow(self, run: str | None) -> None:
        self.asked.append(f"follow {run}")

    def poke(self) -> None:
        self.asked.append("poke")
        if not self.is_there:
            raise CollectorUnavailable("not there")

    def news(self, timeout: float) -> News | None:
        return self.said.pop(0) if self.said else None

    def fetch(self, run: str, segment: int, offset: int, size: int) -> bytes:
        self.asked.append("fetch")
        data = next(self.path.glob("segment-*")).read_bytes()
        return data[offset : offset + min(size, self.page_bytes)]

    def index(self, run: str, position: Position) -> tuple[list[tuple[Header, Position]], Position]:
        with RunArchive(self.path) as archive:
            found = list(archive.frames(position))[:2]
        return found, after(*found[-1]) if found else position


@pytest.mark.parametrize("page_bytes", [1 << 30, 100])
def test_over_a_connection_the_same_records_are_read(new_run: NewRun, page_bytes: int) -> None:
    run = new_run()
    streams = [run.stream(rank) for rank in range(3)]
    for ms in range(0, 100, 10):
        for rank, stream in enumerate(streams):
            run.batch(stream, (ms + rank, f"{rank}:{ms}"), (ms + rank + 5, f"{rank}:{ms}+"))
    collector = Collector(run.path)
    collector.page_bytes = page_bytes
    there = [entry for found in Reading(RemoteSource(collector, "run1")).whole() for entry in found]
    here = [entry for found in Reading(RunArchive(run.path)).whole() for entry in found]
    assert [entry[:3] + entry[4:] for entry in there] == [entry[:3] + entry[4:] for entry in here]
    if page_bytes > 1000:
        assert collector.asked.count("fetch") < 5, "one page holds many batches"


def test_a_page_that_is_not_there_any_more_is_no_endless_question(new_run: NewRun) -> None:
    source = RemoteSource(Collector(new_run().path), "run1")
    with pytest.raises(MessageError, match="no more of segment 1"):
        source.payload(Header(bytes(16), size=100), Position(1, 1 << 20))


def test_a_collector_that_was_killed_may_come_back_for_a_while(new_run: NewRun, clock: Clock) -> None:
    collector = Collector(new_run().path)
    watch = told(collector, "run1", clock)
    assert collector.asked == ["follow run1"]
    clock.now = 20.0
    assert watch(1.0) is None, "silence alone is no end: a poke is answered"
    assert collector.asked[-1] == "poke"
    collector.is_there = False
    clock.now = 29.0
    assert watch(1.0) is None
    collector.is_there = True
    clock.now = 31.5
    assert watch(1.0) is None
    collector.said.append(news(5))
    assert watch(1.0) == news(5)
    collector.is_there = False
    clock.now = 41.0
    assert watch(1.0) is None
    clock.now = 42.0
    found = watch(1.0)
    assert found is not None
    assert found.closing
