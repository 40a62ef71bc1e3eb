"""A page of a run's index, as it travels to a remote reader: headers with their positions, and where to go on."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from tlogs_shared.errors import MessageError
from tlogs_shared.storage.batch import HEADER_BYTES, Header
from tlogs_shared.storage.position import Position

__all__ = ["pack_index", "unpack_index"]

_POSITION: Final = struct.Struct("<IQ")
_ROW_BYTES: Final = _POSITION.size + HEADER_BYTES


def pack_index(frames: Sequence[tuple[Header, Position]], end: Position) -> bytes:
    """The page as bytes."""
    rows = [_POSITION.pack(position.segment, position.offset) + header.pack() for header, position in frames]
    return b"".join([_POSITION.pack(end.segment, end.offset), *rows])


def unpack_index(data: bytes) -> tuple[list[tuple[Header, Position]], Position]:
    """Read a page: the frames, and the position to go on from.

    Raises:
        MessageError: *data* is not an index page.
    """
    if (len(data) - _POSITION.size) % _ROW_BYTES:
        raise MessageError(f"a page of {len(data)} bytes is not an index")
    frames = []
    for start in range(_POSITION.size, len(data), _ROW_BYTES):
        position = Position(*_POSITION.unpack_from(data, start))
        frames.append((Header.unpack(data[start + _POSITION.size : start + _ROW_BYTES]), position))
    return frames, Position(*_POSITION.unpack_from(data))
