"""The oracle finds what is wrong: runs that were made by hand, each with one thing the matter."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from calls import LOGGER, level_of, message_of
from oracle import Finding, Logged, examine
from tlogs_shared.origin import Origin, StreamInfo
from tlogs_shared.storage.batch import Header, seal
from tlogs_shared.storage.record import Fields, pack
from tlogs_shared.storage.segment import SegmentHeader, pack_stream

STREAM = b"s" * 16


def call(number: int, text: str | None = None) -> bytes:
    message = text or message_of(0, 0, number)
    return pack(Fields(1, level_of(number), LOGGER, message, None, None, "", 0, "", "", None))


def gap(**dropped: int) -> bytes:
    extra = {"stream": "tlogs", "fields": {"dropped": dropped}}
    return pack(Fields(1, logging.WARNING, "tlogs", "dropped", None, None, "", 0, "", "", extra))


def judge(
    run: Path,
    batches: Sequence[tuple[int, Sequence[bytes]]],
    *,
    returned: int = 3,
    dropped: Mapping[int, int] = {},
    ended_itself: bool = True,
    spoil: int | None = None,
) -> Finding:
    """What the oracle says of one worker's stream with these batches: first number, records."""
    frames: list[tuple[Header, Any]] = [
        seal(Header(stream=STREAM, first=first, count=len(records)), b"".join(records)) for first, records in batches
    ]
    frames.append(pack_stream(STREAM, StreamInfo(Origin("node1", 7), dropped=dropped), 0))
    data = bytearray(SegmentHeader("run", 1).pack() + b"".join(header.pack() + payload for header, payload in frames))
    if spoil is not None:
        data[spoil] ^= 1
    (run / "segment-00000001.tlf").write_bytes(data)
    return examine(run, [Logged(0, [returned], ended_itself)], {})


def test_a_sound_run_is_one(tmp_path: Path) -> None:
    found = judge(tmp_path, [(0, [call(0), call(1)]), (2, [call(2)])])
    assert (found.problems, found.records, found.calls) == ([], 3, 3)


def test_a_call_that_is_nowhere_is_lost(tmp_path: Path) -> None:
    found = judge(tmp_path, [(0, [call(0), call(2)])])
    assert (found.lost, found.calls) == (1, 2)
    assert found.problem_count


def test_the_last_calls_can_be_lost_too(tmp_path: Path) -> None:
    assert judge(tmp_path, [(0, [call(0), call(1)])]).lost == 1


def test_a_dropped_call_is_not_lost(tmp_path: Path) -> None:
    found = judge(tmp_path, [(0, [call(0), gap(DEBUG=1), call(2)])], dropped={10: 1})
    assert (found.problems, found.lost, found.dropped) == ([], 0, 1)


def test_a_gap_record_at_the_wrong_place_is_noticed(tmp_path: Path) -> None:
    found = judge(tmp_path, [(0, [gap(DEBUG=1), call(0), call(2)])], dropped={10: 1})
    assert found.problem_count == 2
    assert found.lost == 0


def test_a_drop_of_another_level_does_not_count(tmp_path: Path) -> None:
    assert judge(tmp_path, [(0, [call(0), gap(ERROR=1), call(2)])], dropped={40: 1}).lost == 1


def test_more_drops_than_are_missing_are_noticed(tmp_path: Path) -> None:
    assert judge(tmp_path, [(0, [call(0), call(1), call(2)])], dropped={10: 1}).problems == [
        "worker 0: 1 dropped of level 10, but 0 are missing"
    ]


def test_a_batch_that_is_stored_twice_is_noticed(tmp_path: Path) -> None:
    found = judge(tmp_path, [(0, [call(0)]), (0, [call(0)]), (1, [call(1), call(2)])])
    assert found.duplicated == 2  # by its number in the stream, and by the call's own


def test_numbers_that_are_missing_in_a_stream_are_noticed(tmp_path: Path) -> None:
    found = judge(tmp_path, [(0, [call(0)]), (2, [call(1), call(2)])])
    assert found.problems == [f"stream {STREAM.hex()[:8]}: 1 to 1 are missing"]


def test_a_call_that_was_under_way_may_be_stored_or_not(tmp_path: Path) -> None:
    both = [(0, [call(0), call(1), call(2)])]
    assert not judge(tmp_path, both, returned=2, ended_itself=False).problems
    assert not judge(tmp_path, both, returned=3, ended_itself=False).problems
    assert judge(tmp_path, both, returned=2, ended_itself=True).problem_count
    assert judge(tmp_path, both, returned=1, ended_itself=False).problem_count


@pytest.mark.parametrize("text", [message_of(0, 0, 1) + "!", message_of(1, 0, 1), "x"])
def test_a_message_that_was_not_logged_is_noticed(tmp_path: Path, text: str) -> None:
    assert judge(tmp_path, [(0, [call(0), call(1, text), call(2)])]).problem_count


def test_calls_in_another_order_are_noticed(tmp_path: Path) -> None:
    assert judge(tmp_path, [(0, [call(1), call(0), call(2)])]).problem_count


@pytest.mark.parametrize("where", [256, 300, 256 + 90])
def test_a_flipped_bit_is_noticed(tmp_path: Path, where: int) -> None:
    found = judge(tmp_path, [(0, [call(0), call(1), call(2)])], spoil=where)
    assert found.problem_count
