"""The outbox file's format: what is packed is read back, and a scan takes nothing but records."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlogs.outbox import ring
from tlogs.outbox.ring import FileHeader, scan
from tlogs_shared.errors import MessageError
from tlogs_shared.storage.batch import TARGET_RAW_BYTES
from tlogs_shared.storage.record import Fields, pack, unpack_all

HEADER = FileHeader(b"0123456789abcdef", 1 << 20, 1 << 19, 7, {"run": "a", "rank": 3}, {10: 4, -1: 2})


def record(ts: int, levelno: int = 20, template: str = "hello") -> bytes:
    return pack(Fields(ts, levelno, "a", template, None, None, "a.py", 1, "f", "MainThread", None))


RUN = [record(1 << 32), record((1 << 32) + 5, 40), record((1 << 32) + 5)]


def test_a_header_is_read_back_as_it_was_packed() -> None:
    assert FileHeader.unpack(HEADER.pack()) == HEADER


@given(st.binary(max_size=200), st.integers(0, ring.START_BYTES))
def test_any_header_gives_a_header_or_a_message_error(noise: bytes, where: int) -> None:
    data = bytearray(HEADER.pack())
    data[where : where + len(noise)] = noise
    try:
        FileHeader.unpack(bytes(data))
    except MessageError:
        pass


@pytest.mark.parametrize(
    "data",
    [
        b"",
        HEADER.pack()[:-1],
        bytes(ring.START_BYTES),
        replace(HEADER, piece=0).pack(),
        replace(HEADER, piece=5000).pack(),
        replace(HEADER, piece=2 << 20).pack(),
    ],
    ids=["empty", "short", "zeros", "no piece", "odd piece", "piece over capacity"],
)
def test_what_is_no_header_is_refused(data: bytes) -> None:
    with pytest.raises(MessageError):
        FileHeader.unpack(data)


def test_metadata_goes_to_the_slot_that_is_not_in_use() -> None:
    data = bytearray(HEADER.pack())
    slot = int.from_bytes(data[ring.META_INDEX * 8 : ring.META_INDEX * 8 + 8], "little")
    where, new, packed = ring.pack_meta({"run": "b"}, slot)
    data[where : where + len(packed)] = packed
    assert FileHeader.unpack(bytes(data)).meta == {"run": "a", "rank": 3}
    assert ring.unpack_meta(bytes(data), new) == {"run": "b"}


def test_metadata_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="metadata of"):
        ring.pack_meta({"run": "x" * ring.META_BYTES}, 0)


@pytest.mark.parametrize("capacity", [64 << 10, 100_000, 1 << 20, 3 << 20, 64 << 20, 1 << 30])
def test_a_capacity_holds_at_least_two_pieces_of_whole_pages(capacity: int) -> None:
    assert capacity // ring.piece_bytes(capacity) >= 2
    assert ring.piece_bytes(capacity) % ring.START_BYTES == 0


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
