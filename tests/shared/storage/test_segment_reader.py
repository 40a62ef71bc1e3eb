"""A segment is read by the offsets of positions, thinned or not."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tlogs_shared.storage.batch import Header, seal
from tlogs_shared.storage.position import Position
from tlogs_shared.storage.segment import FILE_HEADER_BYTES, THINNED_BASE, SegmentHeader, frame_end, pack_mark
from tlogs_shared.storage.segment_reader import SegmentReader

FRAMES = [seal(Header(b"s" * 16, first=first, count=1), b"x" * 10) for first in range(3)]


def reader_of(beginning: bytes) -> SegmentReader:
    data = beginning + b"".join(header.pack() + payload for header, payload in FRAMES)
    return SegmentReader(7, lambda size, offset: data[offset : offset + size], lambda: len(data))


@pytest.mark.parametrize("thinned", [False, True])
def test_frames_are_found_and_read_by_their_positions(thinned: bool) -> None:
    reader = reader_of(SegmentHeader("run", 7, thinned=thinned).pack())
    base = THINNED_BASE if thinned else 0
    found = list(reader.place(reader.scan()))
    assert [header for header, _ in found] == [header for header, _ in FRAMES]
    assert found[0][1] == Position(7, base + FILE_HEADER_BYTES)
    for (header, place), (_, onward) in pairwise(found):
        assert frame_end(header, place) == onward
        assert reader.read(4, place.offset) == header.pack()[:4]
    assert list(reader.place(reader.scan(found[1][1].offset))) == found[1:]


def test_an_offset_from_before_a_segment_was_thinned_means_its_beginning() -> None:
    reader = reader_of(SegmentHeader("run", 7, thinned=True).pack())
    assert not reader.holds(FILE_HEADER_BYTES + 50)
    assert len(list(reader.place(reader.scan(FILE_HEADER_BYTES + 50)))) == 3
    with pytest.raises(FileNotFoundError, match="removed to save space"):
        reader.read(4, FILE_HEADER_BYTES)


def test_frames_are_found_where_the_file_header_is_damaged() -> None:
    reader = reader_of(b"\0" * FILE_HEADER_BYTES)
    assert (reader.header, reader.base, reader.mark) == (None, 0, 0)
    assert len(list(reader.place(reader.scan(verify=True)))) == 3


def test_the_mark_is_read() -> None:
    beginning = SegmentHeader("run", 7).pack()
    mark = pack_mark(400)
    assert reader_of(beginning[:240] + mark + beginning[240 + len(mark) :]).mark == 400
