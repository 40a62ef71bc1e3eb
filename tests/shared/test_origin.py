"""Who speaks, as maps: what comes back, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from tlogs_shared.end import ENDED, FINISHED, End
from tlogs_shared.errors import MessageError
from tlogs_shared.origin import Origin, StreamInfo

ORIGIN = Origin(host="n1", pid=7, boot_id="b", rank=3, world_size=8, helper="DataLoader1", key="job", outbox="/o")


def test_a_stream_comes_back_from_its_map() -> None:
    """What is stored of a stream is all that was known of it."""
    info = StreamInfo(
        ORIGIN,
        attempt=2,
        head=10,
        lost=1,
        dropped={10: 4},
        end=End("failed", code=3, ended_ns=9),
        offset_ns=-5,
        bound_ns=3,
    )
    assert StreamInfo.from_map(info.as_map()) == info


@pytest.mark.parametrize(
    ("word", "end"),
    [("", None), ("bye", End(FINISHED)), ("gone", End(ENDED)), ("recovered", End(ENDED)), ("of 0.0", End(ENDED))],
)
def test_the_word_that_version_0_1_had_for_an_end_is_understood(word: str, end: End | None) -> None:
    assert StreamInfo.from_map({**StreamInfo(ORIGIN).as_map(), "end": word}).end == end


@pytest.mark.parametrize("end", [7, ["bye"], {"how": "well"}, {"how": "failed", "code": "3"}])
def test_an_end_that_cannot_be_is_refused(end: object) -> None:
    with pytest.raises(MessageError):
        StreamInfo.from_map({**StreamInfo(ORIGIN).as_map(), "end": end})


def test_times_of_a_stream_are_those_of_the_collectors_clock() -> None:
    running = StreamInfo(Origin("n1", 7, started_ns=100), offset_ns=5)
    assert [running.since_ns, StreamInfo(Origin("n1", 7)).since_ns] == [105, 0]
    assert StreamInfo(running.origin, end=End(FINISHED, ended_ns=200), offset_ns=5).since_ns == 205


def test_keys_of_a_newer_version_are_passed_over_and_missing_ones_have_their_default() -> None:
    """Two versions that differ by a field can speak with each other."""
    assert Origin.from_map({"host": "n1", "pid": 7, "colour": "red"}) == Origin("n1", 7)


@pytest.mark.parametrize(
    "wrong",
    [{"host": 1}, {"pid": True}, {"pid": None}, {"rank": "3"}, {"provisional": 1}, {"helper": b"x"}, {"key": None}],
)
def test_a_field_of_the_wrong_type_is_refused(wrong: dict[str, Any]) -> None:
    """What a rank says of itself is checked field by field; a bool is no number."""
    with pytest.raises(MessageError, match="wrong type"):
        Origin.from_map({**ORIGIN.as_map(), **wrong})


@pytest.mark.parametrize("dropped", [None, [], {"10": 4}, {10: 4.0}, {10: None}])
def test_drops_that_are_no_counts_by_level_are_refused(dropped: object) -> None:
    """Arithmetic is done with them."""
    with pytest.raises(MessageError, match="wrong type"):
        StreamInfo.from_map({**StreamInfo(ORIGIN).as_map(), "dropped": dropped})


@pytest.mark.parametrize("values", [None, [], {}, {"host": "n1"}, {"pid": 7}])
def test_what_does_not_say_host_and_process_is_no_origin(values: object) -> None:
    """The least that a stream must say of itself."""
    with pytest.raises(MessageError):
        Origin.from_map(values)


@pytest.mark.parametrize("values", [None, [], {}, {"origin": None}])
def test_what_says_nothing_of_its_origin_describes_no_stream(values: object) -> None:
    with pytest.raises(MessageError):
        StreamInfo.from_map(values)


@pytest.mark.parametrize("rank", [-1, 1_000_001])
def test_a_rank_that_no_set_of_ranks_can_name_is_refused(rank: int) -> None:
    with pytest.raises(MessageError, match=f"rank {rank}"):
        Origin.from_map({**ORIGIN.as_map(), "rank": rank})


@pytest.mark.parametrize(
    ("origin", "label"),
    [({"rank": 3}, "rank3"), ({"rank": 0, "helper": "DataLoader1"}, "rank0/DataLoader1"), ({}, "n1:7")],
)
def test_a_stream_is_named_by_its_rank_or_else_by_its_process(origin: dict[str, Any], label: str) -> None:
    assert Origin("n1", 7, **origin).label == label


def test_times_are_corrected_only_where_an_offset_is_known() -> None:
    assert StreamInfo(ORIGIN).corrected(100) == 100
    assert StreamInfo(ORIGIN, offset_ns=-5).corrected(100) == 95
