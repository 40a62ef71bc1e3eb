"""A run at a glance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tlogs.reading.local_run import LocalRun
from tlogs.reading.runs import summarize
from tlogs_shared.end import ENDED, FINISHED, End

NewRun = Callable[..., Any]


def test_a_run_at_a_glance(new_run: NewRun) -> None:
    run = new_run()
    for rank in (0, 1):
        run.batch(run.stream(rank, dropped={10: 3}, head=2, end=End(FINISHED)), (rank, "a"), (500 + rank, "b"))
    run.batch(run.stream(0, 77, helper="DataLoader0", head=1, end=End(FINISHED)), (2, "c"))
    run.batch(run.stream(None, head=4, end=End(ENDED)), (3, "d"))
    found = summarize(LocalRun(run.path))
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


def test_a_stream_is_known_by_its_last_description_that_can_be_read(new_run: NewRun) -> None:
    run = new_run()
    run.batch(run.stream(3), (0, "a"))
    run.stream(3, helper="DataLoader0")
    segment = next(run.path.glob("segment-*"))
    data = bytearray(segment.read_bytes())
    data[-1] ^= 1
    segment.write_bytes(data)
    found = summarize(LocalRun(run.path))
    assert (found.ranks, found.records) == (1, 1)
