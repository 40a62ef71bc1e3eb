"""Stored runs, as the Python API gives them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest

from tlogs.reading.stored import read, runs
from tlogs_shared.errors import ConfigError

NewRun = Callable[..., Any]


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
    with pytest.raises(TypeError, match=r"unknown filter 'levle' \(did you mean 'level'\?\)"):
        read(dir=run.path.parent, levle="INFO")  # type: ignore[call-arg]


def test_filters_may_be_values(new_run: NewRun) -> None:
    run = new_run()
    for rank in (0, 1):
        run.batch(run.stream(rank), (rank, f"a{rank}"), (1000 + rank, f"b{rank}"))
    late = datetime(2023, 11, 14, 22, 13, 21, tzinfo=timezone.utc)
    assert [record.message for record in read(dir=run.path.parent, ranks=0, since=late)] == ["b0"]
    assert [record.message for record in read(dir=run.path.parent, ranks=1, until=late, level=20)] == ["a1"]


def test_runs_are_listed_live_ones_first(new_run: NewRun) -> None:
    old, new = new_run("old", created_ns=1), new_run("new", created_ns=2)
    with old.live():
        assert [run.name for run in runs(new.path.parent)] == ["old", "new"]
    assert [run.name for run in runs(new.path.parent)] == ["new", "old"]
