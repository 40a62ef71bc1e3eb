"""The outbox file's format: what is packed is read back, and a scan takes nothing but records."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlogs.outbox import ring
from tlogs.outbox.ring import Entry, OutboxHeader, Process, pieces_of, scan, skim
from tlogs_shared.errors import MessageError
from tlogs_shared.storage.batch import TARGET_RAW_BYTES
from tlogs_shared.storage.record import Fields, pack, unpack_all

HEADER = OutboxHeader(
    b"0123456789abcdef", 1 << 20, 1 << 19, 7, {"run": "a", "rank": 3}, {10: 4, -1: 2},
    Process(77, 123456, 4026531836, 4026531841, b"b" * 16), 10**18, True,
)  # fmt: skip


def record(ts: int, levelno: int = 20, template: str = "hello") -> bytes:
    return pack(Fields(ts, levelno, "a", template, None, None, "a.py", 1, "f", "MainThread", None))


RUN = [record(1 << 32), record((1 << 32) + 5, 40), record((1 << 32) + 5)]


def test_a_header_is_read_back_as_it_was_packed() -> None:
    assert OutboxHeader.unpack(HEADER.pack()) == HEADER


@given(st.binary(max_size=200), st.integers(0, ring.HEADER_BYTES))
def test_any_header_gives_a_header_or_a_message_error(noise: bytes, where: int) -> None:
    data = bytearray(HEADER.pack())
    data[where : where + len(noise)] = noise
    try:
        OutboxHeader.unpack(bytes(data))
    except MessageError:
        pass


@pytest.mark.parametrize(
    "data",
    [
        b"",
        HEADER.pack()[:-1],
        bytes(ring.HEADER_BYTES),
        replace(HEADER, piece=0).pack(),
        replace(HEADER, piece=5000).pack(),
        replace(HEADER, piece=2 << 20).pack(),
    ],
    ids=["empty", "short", "zeros", "no piece", "odd piece", "piece over capacity"],
)
def test_what_is_no_header_is_refused(data: bytes) -> None:
    with pytest.raises(MessageError):
        OutboxHeader.unpack(data)


def test_metadata_goes_to_the_slot_that_is_not_in_use() -> None:
    data = bytearray(HEADER.pack())
    slot = int.from_bytes(data[ring.META * 8 : ring.META * 8 + 8], "little")
    where, new, packed = ring.pack_meta({"run": "b"}, slot)
    data[where : where + len(packed)] = packed
    assert OutboxHeader.unpack(bytes(data)).meta == {"run": "a", "rank": 3}
    assert ring.unpack_meta(bytes(data), new) == {"run": "b"}


def test_metadata_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="metadata of"):
        ring.pack_meta({"run": "x" * ring.META_BYTES}, 0)


@pytest.mark.parametrize("capacity", [64 << 10, 100_000, 1 << 20, 3 << 20, 64 << 20, 1 << 30, 8 << 30])
def test_a_capacity_holds_at_least_two_pieces_of_whole_pages(capacity: int) -> None:
    assert capacity // ring.piece_bytes(capacity) >= 2
    piece = ring.piece_bytes(capacity)
    assert piece % ring.PAGE_BYTES == 0
    assert 2 <= capacity // piece <= ring.MAX_PIECES
    assert piece < ring.END_MASK
    assert ring.start_bytes(capacity, piece) < capacity


def test_a_scan_tells_number_level_and_times() -> None:
    data = b"".join(RUN)
    (extent,) = scan(memoryview(data), 7)
    assert (extent.first, extent.count, extent.end, extent.level) == (7, 3, 10, 40)
    assert (extent.first_ts, extent.last_ts, bytes(extent.view)) == (1 << 32, (1 << 32) + 5, data)


@pytest.mark.parametrize("watermark", range(6, 12))
def test_a_scan_leaves_out_what_stands_below_the_watermark(watermark: int) -> None:
    found = list(scan(memoryview(b"".join(RUN)), 7, watermark=watermark))
    assert b"".join(bytes(extent.view) for extent in found) == b"".join(RUN[max(watermark - 7, 0) :])
    assert [extent.first for extent in found] == ([max(watermark, 7)] if watermark < 10 else [])


ENTRY = Entry(3, 7, 3, 40, 1 << 32, (1 << 32) + 5, 4096, 300, 0xDEADBEEF)


def test_an_entry_is_read_back_as_it_was_packed() -> None:
    assert Entry.unpack(ENTRY.pack()) == ENTRY
    assert Entry.unpack(bytes(ring.ENTRY_BYTES)) is None


@given(st.integers(0, ring.ENTRY_BYTES - 1))
def test_an_entry_that_is_half_written_is_none(size: int) -> None:
    other = replace(ENTRY, generation=4, first=99, count=1, level=10, first_ts=1, last_ts=2, start=0, size=9, crc=1)
    torn = other.pack()[:size] + ENTRY.pack()[size:]
    assert Entry.unpack(torn) in (None, ENTRY, other)


def test_a_first_of_another_generation_is_not_believed() -> None:
    state = 2 << ring.GENERATION_SHIFT | 3 * ring.RECORD | 300
    [piece] = pieces_of([state, 2 << ring.GENERATION_SHIFT | 7, state, 1 << ring.GENERATION_SHIFT | 99, 0, 0], 0, 4096)
    assert (piece.first, piece.end, piece.size, piece.generation) == (7, 10, 300, 2)


@given(st.integers(0, 12), st.lists(st.sampled_from([0, 20, 127, 128, 300, 70_000]), min_size=1, max_size=9))
def test_what_is_skimmed_is_what_a_scan_finds(watermark: int, levels: list[int]) -> None:
    data = memoryview(b"".join(record((1 << 32) + index, level) for index, level in enumerate(levels)))
    for size in (len(data), len(data) - 1):
        assert skim(data[:size], 3, watermark=watermark) == next(scan(data[:size], 3, watermark=watermark), None)


def test_a_skim_ends_at_the_size_of_a_batch() -> None:
    data = memoryview(record(1 << 32, template="x" * 100_000) * 7)
    assert skim(data, 0) == next(scan(data, 0))


@given(st.binary(max_size=300))
def test_a_skim_of_any_bytes_gives_an_extent_or_none(noise: bytes) -> None:
    found = skim(memoryview(RUN[0] + noise), 0)
    assert found is not None


@given(st.integers(0, len(b"".join(RUN))))
def test_a_scan_of_a_torn_run_gives_the_whole_records(size: int) -> None:
    found = list(scan(memoryview(b"".join(RUN)[:size]), 0))
    whole = sum(size >= len(b"".join(RUN[:count])) for count in (1, 2, 3))
    assert sum(extent.count for extent in found) == whole


@given(st.binary(max_size=300))
def test_a_scan_stops_before_what_is_no_record(noise: bytes) -> None:
    found = list(scan(memoryview(RUN[0] + noise), 0))
    assert bytes(found[0].view).startswith(RUN[0])
    for extent in found:
        assert len(list(unpack_all(bytes(extent.view)))) == extent.count


def test_a_scan_stops_before_a_time_that_goes_back() -> None:
    data = memoryview(RUN[1] + RUN[0])
    assert [extent.count for extent in scan(data, 0)] == [1]
    assert list(scan(data, 0, after_ts=1 << 60)) == []


def test_a_scan_cuts_extents_of_the_size_of_a_batch() -> None:
    one = record(1 << 32, template="x" * 100_000)
    found = list(scan(memoryview(one * 7), 0))
    assert [(extent.first, extent.count) for extent in found] == [(0, 3), (3, 3), (6, 1)]
    assert len(found[0].view) >= TARGET_RAW_BYTES


@pytest.mark.parametrize("nothing", [{"count": 0}, {"generation": 0, "first": 0}])
def test_an_entry_without_records_is_none(nothing: dict[str, int]) -> None:
    assert Entry.unpack(replace(ENTRY, **nothing).pack()) is None
