"""A run at a glance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tlogs.reading.local_run import LocalRun
from tlogs.reading.runs import summarize
from tlogs_shared.end import ENDED, FAILED, FINISHED, End

START_NS = 1_700_000_000_000_000_000
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
    assert found.asdict()["end"] == "2023-11-14T22:13:20.501000000Z"
    assert (found.outcome, found.command) == ("finished", "")
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


def test_a_run_is_live_only_while_a_rank_is(new_run: NewRun) -> None:
    """Also where its daemon still has it open, and a helper or launcher speaks."""
    run = new_run()
    run.stream(0, command="train.py --lr 0.1")
    run.stream(0, 77, helper="DataLoader0", command="-c worker")
    run.stream(None, command="torchrun train.py")
    with run.live():
        found = summarize(LocalRun(run.path))
        assert (found.live, found.asdict()["end"], found.command) == (True, None, "train.py --lr 0.1")
        run.stream(0, end=End(FAILED, code=3, ended_ns=START_NS + 10**9))
        found = summarize(LocalRun(run.path))
        assert (found.live, found.outcome) == (False, "failed")
        assert found.asdict()["end"] == "2023-11-14T22:13:21.000000000Z"
