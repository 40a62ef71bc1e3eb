"""What a reader gets of a run, and what it is told beside the records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tlogs.reading.cursor import Cursor, filter_for
from tlogs.reading.entry import Entry
from tlogs.reading.local_run import LocalRun
from tlogs.reading.run import end_of

START_NS = 1_700_000_000_000_000_000
NewRun = Callable[..., Any]


def texts(entries: Sequence[Entry]) -> list[str]:
    return [entry[4].template for entry in entries]


def at(ms: int) -> int:
    return START_NS + ms * 1_000_000


def test_a_time_of_day_is_one_near_the_end_of_the_run(new_run: NewRun) -> None:
    run = new_run()
    run.batch(run.stream(0), (0, "a"), (3_600_000, "b"))
    with LocalRun(run.path) as archive:
        choice = filter_for(archive, {"since": "2023-11-14T22:30:00+00:00"})
        assert texts([entry for found in Cursor(archive, choice).whole() for entry in found]) == ["b"]
        assert end_of(archive) == at(3_600_000)


def test_what_is_not_in_the_store_is_said(new_run: NewRun) -> None:
    run = new_run()
    stream = run.stream(3)
    run.batch(stream, (1, "a"))
    run.batch(stream, (2, "b"), skip=5)
    cursor = Cursor(LocalRun(run.path))
    assert texts([entry for found in cursor.whole() for entry in found]) == ["a", "b"]
    assert cursor.notes == ["5 records of rank3 are not in the store (lost, damaged or removed)"]
