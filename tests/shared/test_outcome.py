"""How a run ended, from how its ranks did."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest

from tlogs_shared.end import ENDED, FAILED, FINISHED, KILLED, SILENT, End
from tlogs_shared.origin import Origin, StreamInfo
from tlogs_shared.outcome import newest, outcome, story

S = 10**9
AT = 1_700_000_000
RUNS: End | None = None


def rank(number: int | None, end: End | None, attempt: int = 0, **origin: Any) -> StreamInfo:
    return StreamInfo(Origin("n1", 7, rank=number, **origin), attempt=attempt, end=end)


def ended(how: str, second: int = 0, **more: Any) -> End:
    return End(how, ended_ns=(AT + second) * S, **more)


def clock(second: int) -> str:
    return f"{datetime.fromtimestamp(AT + second, tz=timezone.utc).astimezone():%H:%M:%S}"


TERM = ended(KILLED, 3, signal="SIGTERM")
NAN = ended(FAILED, 2, exception="ValueError: loss is nan")
FINE = ended(FINISHED)


@pytest.mark.parametrize(
    ("ends", "found"),
    [
        ([FINE, FINE], "finished"),
        ([FINE, NAN], "failed"),
        ([TERM, NAN, TERM], "failed"),  # the signals came after it
        ([TERM, ended(FAILED, 4, code=1)], "stopped"),  # what it broke on its way out is no cause
        ([ended(KILLED, 1, signal="SIGINT"), TERM], "stopped"),
        ([ended(FAILED, 1, exception="KeyboardInterrupt"), TERM], "stopped"),
        ([ended(FAILED, 1, exception="KeyboardInterruptish: x")], "failed"),
        ([ended(KILLED, 1, signal="SIGKILL"), TERM], "failed"),
        ([FINE, TERM], "stopped"),
        ([FINE, ended(ENDED)], "unknown"),
        ([FINE, ended(SILENT)], "unknown"),
        ([NAN, ended(SILENT)], "failed"),
        ([FINE, RUNS], "unknown"),
        ([], "unknown"),
    ],
)
def test_the_outcome_of_a_run_is_that_of_its_first_death(ends: list[End | None], found: str) -> None:
    assert outcome([rank(number, end) for number, end in enumerate(ends)], live=False) == found


def test_a_run_is_live_while_a_rank_is_and_no_longer() -> None:
    assert outcome([rank(0, NAN), rank(1, RUNS)], live=True) == "live"
    assert outcome([rank(0, FINE), rank(0, RUNS, helper="DataLoader0"), rank(None, RUNS)], live=True) == "finished"


def test_the_last_attempt_decides() -> None:
    """Of a world that torchrun made smaller, those that it left out do not."""
    first = [rank(number, NAN, restart_count=0) for number in range(3)]
    again = [rank(number, FINE, 1, restart_count=1) for number in range(2)]
    assert outcome([*first, *again], live=False) == "finished"


def test_who_only_assumed_a_rank_gives_way_to_who_knows_it() -> None:
    parent, child, other = rank(0, RUNS, provisional=True), rank(0, FINE), rank(1, RUNS)
    assert newest([parent, child, other, rank(1, RUNS), rank(1, FINE)]) == [child, other, other]
    assert newest([parent]) == [parent]


@pytest.mark.parametrize(
    ("ends", "text"),
    [
        ([FINE, FINE], ""),
        (
            [TERM, NAN, TERM, TERM],
            f"rank 1 ValueError: loss is nan, {clock(2)}; then 0, 2-3 (SIGTERM, after it)",
        ),
        ([End(FAILED, code=3)], "rank 0 exit status 3"),
        ([FINE, ended(SILENT), RUNS], "ranks 1-2 silent"),
        ([ended(ENDED), FINE], "rank 0 ended, and how is not known"),
        ([End(FAILED, exception="A: b\nc")], "rank 0 A: b…"),
        ([End(FAILED, exception="x" * 300)], f"rank 0 {'x' * 120}…"),
        (
            [ended(KILLED, 1, signal="SIGKILL", oom=True), TERM, ended(ENDED)],
            f"rank 0 SIGKILL (out of memory), {clock(1)}; then 1 (SIGTERM, after it); "
            "rank 2 ended, and how is not known",
        ),
    ],
)
def test_the_story_names_the_first_death_and_what_came_of_it(ends: list[End | None], text: str) -> None:
    assert story([rank(number, end) for number, end in enumerate(ends)]) == text
