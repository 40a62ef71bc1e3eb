"""A page of an index on its way to a remote reader."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlogs_shared.errors import MessageError
from tlogs_shared.storage.batch import Header
from tlogs_shared.storage.index_page import pack_index, unpack_index
from tlogs_shared.storage.position import Position

POSITIONS = st.builds(Position, st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1))
HEADERS = st.builds(Header, st.binary(min_size=16, max_size=16), first=st.integers(0, 2**40))


@given(st.lists(st.tuples(HEADERS, POSITIONS), max_size=5), POSITIONS)
def test_a_page_comes_back_as_it_was(frames: list[tuple[Header, Position]], end: Position) -> None:
    assert unpack_index(pack_index(frames, end)) == (frames, end)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_page_or_a_message_error(data: bytes) -> None:
    try:
        unpack_index(data)
    except MessageError:
        pass


@pytest.mark.parametrize("cut", [1, 5, 11, 12])
def test_a_page_that_was_cut_is_refused(cut: int) -> None:
    data = pack_index([(Header(b"s" * 16), Position(1, 2))], Position(1, 3))
    with pytest.raises(MessageError):
        unpack_index(data[:-cut])
    with pytest.raises(MessageError):
        unpack_index(data[:12][:-cut])
