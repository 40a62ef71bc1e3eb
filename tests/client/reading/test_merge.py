"""Many streams become one order, whatever arrives when."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tlogs.reading.entry import NO_RANK, Entry
from tlogs.reading.filters import Filter
from tlogs.reading.merge import Merge
from tlogs_shared.errors import MessageError, StoreError
from tlogs_shared.origin import Origin, StreamInfo
from tlogs_shared.rankset import RankSet
from tlogs_shared.storage.batch import Header, Kind, seal
from tlogs_shared.storage.position import Position
from tlogs_shared.storage.record import Fields, pack

Frame = tuple[Header, bytes]


def stream_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


def info(rank: int | None, *, offset_ns: int | None = None, attempt: int = 0) -> StreamInfo:
    return StreamInfo(Origin(host="n1", pid=100, rank=rank), attempt=attempt, offset_ns=offset_ns)


def batch(stream: int, first: int, times: list[int], *, levelno: int = 20, recovered: bool = False) -> Frame:
    """A frame whose records say their stream and number."""
    records = [
        Fields(ts, levelno, "train", f"{stream}:{number}", None, None, "a.py", 1, "f", "MainThread", None)
        for number, ts in enumerate(times, first)
    ]
    header = Header(
        stream=stream_id(stream),
        recovered=recovered,
        level=levelno,
        first=first,
        count=len(times),
        first_ts=times[0],
        last_ts=times[-1],
        low_ts=times[-1],
    )
    return seal(header, b"".join(map(pack, records)), zstandard.ZstdCompressor())


class Stored:
    """Frames that a merge was given, as a store gives them back; `errors` says which payload cannot be had."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self.loaded: list[int] = []
        self.errors: dict[int, Exception] = {}

    def load(self, header: Header, position: Position) -> bytes:
        self.loaded.append(position.offset)
        if position.offset in self.errors:
            raise self.errors[position.offset]
        return self.payloads[position.offset]

    def add(self, merge: Merge, *frames: Frame) -> None:
        for header, payload in frames:
            merge.add(header, Position(1, len(self.payloads)))
            self.payloads.append(payload)


def merge_of(
    frames: list[Frame], ranks: dict[int, StreamInfo], choice: Filter | None = None, stored: Stored | None = None
) -> Merge:
    stored = stored or Stored()
    merge = Merge(stored.load, choice, "run1")
    stored.add(merge, *frames)
    merge.label({stream_id(number): found for number, found in ranks.items()})
    return merge


def flat(lists: Iterator[list[Entry]]) -> list[Entry]:
    return [entry for entries in lists for entry in entries]


def texts(entries: list[Entry]) -> list[str]:
    return [entry[4].template for entry in entries]


def test_the_order_is_corrected_time_then_rank_then_number_and_no_rank_comes_first() -> None:
    frames = [batch(1, 0, [10, 10, 30]), batch(2, 0, [10, 20, 30]), batch(3, 0, [10])]
    merge = merge_of(frames, {1: info(1), 2: info(0), 3: info(None)})
    entries = flat(merge.take())
    assert [(entry[0], entry[1]) for entry in entries] == [
        (10, NO_RANK),
        (10, 0),
        (10, 1),
        (10, 1),
        (20, 0),
        (30, 0),
        (30, 1),
    ]
    assert texts(entries) == ["3:0", "2:0", "1:0", "1:1", "2:1", "2:2", "1:2"]


def test_a_stream_from_another_host_is_placed_by_its_corrected_time() -> None:
    merge = merge_of([batch(1, 0, [100]), batch(2, 0, [1000])], {1: info(0), 2: info(1, offset_ns=-950)})
    assert [(entry[0], entry[4].template) for entry in flat(merge.take())] == [(50, "2:0"), (100, "1:0")]


lives = st.dictionaries(
    st.integers(0, 4),
    st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=4), min_size=1, max_size=5),
    min_size=1,
    max_size=5,
)


def framed(lives: dict[int, list[list[int]]]) -> dict[int, list[Frame]]:
    """Each stream's steps of time, cut into batches."""
    found: dict[int, list[Frame]] = {}
    for stream, batches in lives.items():
        number = ts = 0
        for steps in batches:
            times = []
            for step in steps:
                ts += step
                times.append(ts)
            found.setdefault(stream, []).append(batch(stream, number, times))
            number += len(times)
    return found


@given(lives, st.randoms(use_true_random=False))
def test_every_record_comes_once_and_in_order_however_the_streams_arrive(
    lives: dict[int, list[list[int]]], random: Random
) -> None:
    by_stream = framed(lives)
    # Streams arrive interleaved at will; within a stream the order of its numbers holds. Some frames come twice.
    queue = [stream for stream, frames in by_stream.items() for _ in frames]
    random.shuffle(queue)
    left = {stream: list(frames) for stream, frames in by_stream.items()}
    arrived = []
    for stream in queue:
        frame = left[stream].pop(0)
        arrived += [frame, frame] if random.random() < 0.2 else [frame]
    entries = flat(merge_of(arrived, {stream: info(stream % 3) for stream in by_stream}).take())
    assert entries == sorted(entries)
    assert sorted(texts(entries)) == sorted(
        f"{stream}:{number}"
        for stream, frames in by_stream.items()
        for header, _ in frames
        for number in range(header.first, header.end)
    )


@given(lives, st.lists(st.integers(0, 300), max_size=5).map(sorted))
def test_taken_up_to_one_horizon_after_another_the_order_is_the_same(
    lives: dict[int, list[list[int]]], horizons: list[int]
) -> None:
    by_stream = framed(lives)
    frames = [frame for found in by_stream.values() for frame in found]
    ranks = {stream: info(stream) for stream in by_stream}
    whole = flat(merge_of(frames, ranks).take())
    merge = merge_of(frames, ranks)
    taken: list[Entry] = []
    for horizon in horizons:
        taken += flat(merge.take(horizon))
        assert texts(taken) == texts([entry for entry in whole if entry[0] <= horizon])
    assert texts(taken + flat(merge.take())) == texts(whole)


@given(lives, st.integers(0, 30), st.none() | st.integers(0, 300))
def test_the_last_records_are_those_that_a_full_reading_ends_with(
    lives: dict[int, list[list[int]]], count: int, horizon: int | None
) -> None:
    by_stream = framed(lives)
    frames = [frame for found in by_stream.values() for frame in found]
    ranks = {stream: info(stream) for stream in by_stream}
    whole = flat(merge_of(frames, ranks).take())
    due = [entry for entry in whole if horizon is None or entry[0] <= horizon]
    merge = merge_of(frames, ranks)
    assert texts(merge.last(count, horizon)) == texts(due[max(len(due) - count, 0) :])
    assert texts(flat(merge.take())) == texts(whole[len(due) :]), "what lies beyond the horizon is still to come"


def test_thousands_of_records_are_decoded_piece_by_piece_and_stay_in_order() -> None:
    frames = [batch(stream, 0, list(range(stream, 60_000, 40))) for stream in range(40)]
    entries = flat(merge_of(frames, {stream: info(stream) for stream in range(40)}).take())
    assert [entry[0] for entry in entries] == list(range(60_000))


def test_a_recut_batch_gives_only_the_records_that_are_new() -> None:
    merge = merge_of([batch(1, 0, [1, 2, 3]), batch(1, 1, [2, 3, 4, 5])], {1: info(0)})
    assert texts(flat(merge.take())) == ["1:0", "1:1", "1:2", "1:3", "1:4"]


def test_numbers_that_were_never_stored_are_named() -> None:
    merge = merge_of([batch(1, 0, [1, 2]), batch(1, 5, [9])], {1: info(0)})
    assert [(speaker.label, holes) for speaker, holes in merge.missing.items()] == [("rank0", [(2, 5)])]


def test_a_damaged_batch_is_counted_and_the_others_are_read() -> None:
    good, (header, payload) = batch(1, 0, [1, 2]), batch(1, 2, [3, 4, 5])
    merge = merge_of([good, (header, payload[:-1] + bytes([payload[-1] ^ 1])), batch(1, 5, [6])], {1: info(0)})
    assert texts(flat(merge.take())) == ["1:0", "1:1", "1:5"]
    assert merge.damaged == 3


@pytest.mark.parametrize("error", [MessageError("gone"), StoreError("gone")])
def test_a_payload_that_cannot_be_had_any_more_does_not_end_the_reading(error: Exception) -> None:
    stored = Stored()
    stored.errors[0] = error
    merge = merge_of([batch(1, 0, [1]), batch(1, 1, [2])], {1: info(0)}, stored=stored)
    assert texts(flat(merge.take())) == ["1:1"]
    assert merge.damaged == 1


def test_a_rank_learnt_late_labels_what_is_read_from_then_on() -> None:
    stored = Stored()
    merge = merge_of([batch(1, 0, [1])], {1: info(0)}, stored=stored)
    before = flat(merge.take())
    stored.add(merge, batch(1, 1, [2]))
    merge.label({stream_id(1): info(7)})
    assert [entry[3].label for entry in before + flat(merge.take())] == ["rank0", "rank7"]


def test_a_rank_learnt_late_decides_about_all_that_was_not_read_yet() -> None:
    """`--ranks 7` finds the stream from its first record on, though it did not know its rank then."""
    stored = Stored()
    choice = Filter(ranks=RankSet.of([7]))
    merge = merge_of([batch(1, 0, [1, 2]), batch(2, 0, [1])], {1: info(0), 2: info(7)}, choice, stored)
    merge.label({stream_id(1): info(7), stream_id(2): info(0)})
    assert texts(flat(merge.take())) == ["1:0", "1:1"]


def test_records_of_a_stream_that_nothing_describes_are_shown_under_its_id() -> None:
    assert [entry[3].label for entry in flat(merge_of([batch(1, 0, [1])], {}).take())] == ["stream-00000000:0"]


def test_recovered_batches_say_so() -> None:
    merge = merge_of([batch(1, 0, [1]), batch(1, 1, [2], recovered=True)], {1: info(0)})
    assert [entry[3].recovered for entry in flat(merge.take())] == [False, True]


def test_batches_that_cannot_match_are_never_loaded() -> None:
    """A filtered reading of a long run is quick because of this."""
    frames = [
        batch(1, 0, [1, 2], levelno=30),
        batch(1, 2, [60], levelno=20),
        batch(1, 3, [70, 80], levelno=30),
        batch(2, 0, [70], levelno=30),
    ]
    choice = Filter(ranks=RankSet.of([0]), level=30, since_ns=50)
    for read in (lambda merge: flat(merge.take()), lambda merge: merge.last(10)):
        stored = Stored()
        assert texts(read(merge_of(frames, {1: info(0), 2: info(1)}, choice, stored))) == ["1:3", "1:4"]
        assert stored.loaded == [2]


def test_the_end_of_a_long_run_is_found_from_its_end() -> None:
    stored = Stored()
    frames = [batch(1, number, [number]) for number in range(100)]
    assert texts(merge_of(frames, {1: info(0)}, stored=stored).last(2)) == ["1:98", "1:99"]
    assert len(stored.loaded) <= 3


def test_frames_that_are_no_batches_are_passed_over() -> None:
    merge = merge_of([], {1: info(0)})
    merge.add(Header(stream=stream_id(1), kind=Kind.STREAM, first=9), Position(1, 0))
    assert flat(merge.take()) == []
    assert merge.missing == {}
    assert merge.newest == 0


def test_the_newest_time_is_that_of_the_streams_that_were_chosen() -> None:
    frames = [batch(1, 0, [10, 20]), batch(2, 0, [90])]
    merge = merge_of(frames, {1: info(0, offset_ns=5), 2: info(1)}, Filter(ranks=RankSet.of([0])))
    assert merge.newest == 25


def test_a_stream_that_turns_out_not_to_be_chosen_is_left_in_the_middle_of_a_batch() -> None:
    """Rank 0 until it knows better, with `--ranks 0`: what was decoded so far is shown, and the rest is not."""
    choice = Filter(ranks=RankSet.of([0]))
    merge = merge_of([batch(1, 0, list(range(60_000)))], {1: info(0)}, choice)
    merge.label({stream_id(1): info(0)})
    before = flat(merge.take(100))
    assert len(before) == 101
    merge.label({stream_id(1): info(7)})
    assert len(flat(merge.take())) < 50_000
    assert merge.last(5) == []
