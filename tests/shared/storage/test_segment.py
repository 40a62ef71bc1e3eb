"""The format of segments: names, file header, mark, and a scan that finds what is sound."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlogs_shared.errors import MessageError
from tlogs_shared.origin import Origin, StreamInfo
from tlogs_shared.storage.batch import HEADER_BYTES, Header, Kind, check_payload, seal
from tlogs_shared.storage.layout import parse_name, parse_torn, segment_name, torn_name
from tlogs_shared.storage.ledger import Ledger
from tlogs_shared.storage.position import START, Position
from tlogs_shared.storage.segment import (
    FILE_HEADER_BYTES,
    MARK_OFFSET,
    THINNED_BASE,
    Ending,
    Scan,
    SegmentHeader,
    pack_mark,
    pack_stream,
    unpack_mark,
    unpack_stream,
)

STREAM = bytes(range(16))
INFO = StreamInfo(origin=Origin(host="node1", pid=7, rank=3), attempt=2, head=12, dropped={10: 4})


def frame(first: int, payload: bytes) -> bytes:
    header, sealed = seal(Header(stream=STREAM, first=first, count=1), payload)
    return header.pack() + sealed


def segment(payloads: list[bytes]) -> tuple[bytes, list[int]]:
    """A segment with one frame for each payload, and the offsets at which they begin and the last ends."""
    data = SegmentHeader("run", 1).pack()
    offsets = [len(data)]
    for first, payload in enumerate(payloads):
        data += frame(first, payload)
        offsets.append(len(data))
    return data, offsets


def scan(data: bytes, *, start: int = FILE_HEADER_BYTES, verify: bool = False, skip: bool = False) -> Scan:
    return Scan(lambda size, offset: data[offset : offset + size], len(data), start, verify=verify, skip=skip)


payload_lists = st.lists(st.binary(min_size=1, max_size=300) | st.just(b"x" * 9000), max_size=6)


@given(st.integers(1, 10**9))
def test_a_name_gives_its_number_back(number: int) -> None:
    assert parse_name(segment_name(number)) == number
    assert parse_torn(torn_name(number, 256)) == number


@pytest.mark.parametrize("name", ["run.json", "segment-1.tlf", "segment-00000001.tlf.tmp", "segment-00000001.9.torn"])
def test_other_files_are_no_segments(name: str) -> None:
    assert parse_name(name) is None


def test_a_file_header_survives_packing_with_the_longest_name() -> None:
    header = SegmentHeader("r" * 128, 7, Position(6, 123456789012), thinned=True)
    packed = header.pack()
    assert len(packed) == FILE_HEADER_BYTES
    assert SegmentHeader.unpack(packed) == header
    assert header.base == THINNED_BASE


@given(st.integers(0, 8 * (4 + 2 + 2 + 4 + 4 + 8 + 128 + 4) - 1))
def test_one_flipped_bit_in_a_file_header_is_noticed(bit: int) -> None:
    packed = bytearray(SegmentHeader("run", 7).pack())
    packed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(MessageError):
        SegmentHeader.unpack(bytes(packed))


def test_a_file_header_that_is_not_all_there_is_refused() -> None:
    with pytest.raises(MessageError, match="256 bytes, found 3"):
        SegmentHeader.unpack(b"TLS")


@given(st.integers(0, 2**63))
def test_a_mark_is_read_where_it_was_written(end: int) -> None:
    data = bytearray(SegmentHeader("run", 1).pack())
    assert unpack_mark(bytes(data)) == 0
    packed = pack_mark(end)
    data[MARK_OFFSET : MARK_OFFSET + len(packed)] = packed
    assert unpack_mark(bytes(data)) == end
    assert SegmentHeader.unpack(bytes(data)).run == "run", "the mark is no part of what the checksum covers"
    data[MARK_OFFSET] ^= 1
    assert unpack_mark(bytes(data)) == 0


def test_a_mark_does_not_cross_a_sector() -> None:
    assert (MARK_OFFSET + len(pack_mark(0)) - 1) // 512 == MARK_OFFSET // 512


def test_a_stream_frame_says_what_was_known_and_the_watermark() -> None:
    header, payload = pack_stream(STREAM, INFO, 41)
    assert (header.kind, header.stream, header.first, header.end) == (Kind.STREAM, STREAM, 41, 41)
    assert unpack_stream(header, payload) == INFO


@given(st.binary(max_size=60))
def test_any_bytes_are_a_stream_frame_or_a_message_error(payload: bytes) -> None:
    header, sealed = seal(Header(stream=STREAM, kind=Kind.STREAM), payload)
    try:
        unpack_stream(header, sealed)
    except MessageError:
        pass


@given(payload_lists, st.booleans())
def test_a_whole_segment_scans_clean(payloads: list[bytes], verify: bool) -> None:
    data, offsets = segment(payloads)
    found = scan(data, verify=verify)
    frames = list(found)
    assert [item.offset for item in frames] == offsets[:-1]
    assert [data[item.payload_offset : item.end] for item in frames] == payloads
    assert (found.end, found.why, found.damage) == (offsets[-1], Ending.CLEAN, [])


@given(payload_lists, st.data())
def test_a_scan_from_any_frame_finds_the_rest(payloads: list[bytes], data: st.DataObject) -> None:
    packed, offsets = segment(payloads)
    at = data.draw(st.integers(0, len(offsets) - 1))
    assert [item.offset for item in scan(packed, start=offsets[at])] == offsets[at:-1]


@given(payload_lists.filter(bool), st.data())
def test_a_segment_cut_at_any_byte_gives_every_whole_frame(payloads: list[bytes], data: st.DataObject) -> None:
    packed, offsets = segment(payloads)
    size = data.draw(st.integers(FILE_HEADER_BYTES, len(packed)))
    found = scan(packed[:size])
    whole = [offset for offset in offsets if offset <= size]
    assert [item.offset for item in found] == whole[:-1]
    assert found.end == whole[-1]
    assert found.why is (Ending.CLEAN if size in offsets else Ending.TORN)


@given(payload_lists.filter(bool), st.data())
def test_one_flipped_bit_costs_one_frame(payloads: list[bytes], data: st.DataObject) -> None:
    packed, offsets = segment(payloads)
    at = data.draw(st.integers(FILE_HEADER_BYTES, len(packed) - 1))
    damaged = bytearray(packed)
    damaged[at] ^= 1 << data.draw(st.integers(0, 7))
    hit = max(index for index, offset in enumerate(offsets) if offset <= at)

    stopped = scan(bytes(damaged), verify=True)
    assert [item.offset for item in stopped] == offsets[:hit]
    assert (stopped.end, stopped.why) == (offsets[hit], Ending.DAMAGED)

    passed = scan(bytes(damaged), verify=True, skip=True)
    assert [item.offset for item in passed] == offsets[:hit] + offsets[hit + 1 : -1]
    last = hit == len(payloads) - 1
    if not last:
        assert passed.damage == [(offsets[hit], offsets[hit + 1])]
        assert (passed.end, passed.why) == (len(packed), Ending.CLEAN)


@given(st.binary(max_size=400))
def test_garbage_after_the_frames_is_never_a_frame(garbage: bytes) -> None:
    data, offsets = segment([b"one", b"two"])
    found = scan(data + garbage, skip=True)
    assert [item.offset for item in found] == offsets[:-1]
    assert (found.why is Ending.CLEAN) == (not garbage)
    assert found.end == offsets[-1]


def test_a_search_finds_a_frame_across_the_border_of_its_pieces() -> None:
    """Damage longer than what is searched at once, with the next frame's first bytes in two pieces."""
    good = frame(1, b"payload")
    for slack in range(5):
        data = SegmentHeader("run", 1).pack() + b"\xff" * ((1 << 20) - slack) + good
        assert [item.header.first for item in scan(data, skip=True)] == [1]


def test_a_frame_inside_a_damaged_payload_is_not_taken_for_one() -> None:
    """A program may log the bytes of a segment."""
    inner = frame(99, b"logged")
    data, offsets = segment([b"....." + inner + b".....", b"next"])
    damaged = bytearray(data)
    damaged[offsets[0] + HEADER_BYTES] ^= 1
    assert [item.header.first for item in scan(bytes(damaged), verify=True, skip=True)] == [1]


def test_payloads_are_not_read_without_verify() -> None:
    data, _ = segment([b"x" * 100_000, b"y" * 100_000])
    read = 0

    def count(size: int, offset: int) -> bytes:
        nonlocal read
        read += size
        return data[offset : offset + size]

    for item in Scan(count, len(data)):
        check_payload(item.header, data[item.payload_offset : item.end])
    assert read <= 2 * 4096


@given(st.integers(0, 10**9), st.integers(0, 10**12))
def test_a_position_survives_its_text(segment_number: int, offset: int) -> None:
    position = Position(segment_number, offset)
    assert Position.parse(str(position)) == position
    assert position >= START


@pytest.mark.parametrize("text", ["", "3", "3:", ":4", "3:-1", "3:4 ", "٣:٤", "1" * 11 + ":0"])
def test_a_text_that_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(MessageError, match="expected a position"):
        Position.parse(text)


def test_a_ledger_survives_its_text_and_counts_a_repeated_removal_once() -> None:
    once = Ledger().thin(1, {10: 5, 20: 7}).thin(2, {20: 1})
    assert once.thin(2, {20: 1}).removed() == once.removed() == {10: 5, 20: 8}
    dropped = once.drop(1, {30: 2})
    assert (dropped.removed(), dropped.dropped_before) == ({10: 5, 20: 8, 30: 2}, 2)
    assert Ledger.from_map(dropped.as_map()) == dropped


@pytest.mark.parametrize("values", [None, [], {}, {"dropped_before": "x", "dropped": {}, "thinned": {}}])
def test_what_is_no_ledger_is_refused(values: object) -> None:
    with pytest.raises(MessageError, match="ledger"):
        Ledger.from_map(values)


def test_a_segment_of_a_newer_version_is_not_guessed_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlogs_shared.storage.segment._VERSION", 2)
    newer = SegmentHeader("run", 1).pack()
    monkeypatch.undo()
    with pytest.raises(MessageError, match="a segment of version 2, this tlogs reads version 1; install a newer one"):
        SegmentHeader.unpack(newer)


def test_a_search_ends_where_the_file_was_cut_meanwhile() -> None:
    data = SegmentHeader("run", 1).pack() + b"damage" * 40
    found = Scan(lambda size, offset: data[offset : offset + size], len(data) + (1 << 21), skip=True)
    assert list(found) == []
    assert found.why is Ending.DAMAGED
