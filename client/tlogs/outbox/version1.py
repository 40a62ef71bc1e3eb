"""Outboxes that a worker of tlogs 0.1 left: the same records, with a header in every piece and no table."""

from __future__ import annotations

import os
import struct
from typing import Final

from tlogs.outbox.ring import OutboxHeader, Piece, scan, unpack_dropped, unpack_meta
from tlogs_shared.errors import MessageError

__all__ = ["pieces_in", "unpack_header"]

_MAGIC: Final = b"TLOUTBX1"
_FIXED: Final = struct.Struct("=8sQ16sQQQQ")  # magic, version, stream, capacity, piece, acknowledged, metadata slot
START_BYTES: Final = 16 * 1024

_PIECE: Final = struct.Struct("=8sQQ")  # magic, number of the first record, where in the file the last one ends
_PIECE_MAGIC: Final = b"TLPIECE1"
_PIECE_HEADER_BYTES: Final = 64


def unpack_header(data: bytes) -> OutboxHeader:
    """Read a header.

    Raises:
        MessageError: it is not a header of this version.
    """
    if len(data) < START_BYTES:
        raise MessageError(f"expected an outbox, which has {START_BYTES} bytes or more, found {len(data)}")
    magic, version, stream, capacity, piece, acknowledged, slot = _FIXED.unpack_from(data)
    if magic != _MAGIC or version != 1:
        raise MessageError(f"expected an outbox of version 1, found {magic!r}, version {version}")
    if not (_PIECE_HEADER_BYTES < piece <= capacity) or piece % 4096:
        raise MessageError(f"an outbox with pieces of {piece} bytes and a capacity of {capacity}")
    return OutboxHeader(
        stream, capacity, piece, acknowledged, unpack_meta(data, slot), unpack_dropped(data), version=version
    )


def pieces_in(fd: int, piece: int) -> list[Piece]:
    """The pieces that hold records, in order; only the last one's count is not known without a scan."""
    found = []
    for index, base in enumerate(range(START_BYTES, os.fstat(fd).st_size - _PIECE_HEADER_BYTES, piece)):
        magic, first, end = _PIECE.unpack(os.pread(fd, _PIECE.size, base))
        if magic == _PIECE_MAGIC and base + _PIECE_HEADER_BYTES < end <= base + piece:
            found.append((first, index, base + _PIECE_HEADER_BYTES, end))
    found.sort()
    following = [first for first, *_ in found[1:]]
    pieces = []
    for (first, index, base, end), after in zip(found, [*following, None], strict=True):
        if after is None:
            data = memoryview(os.pread(fd, end - base, base))
            after = max([first, *(extent.end for extent in scan(data, first))])
        pieces.append(Piece(first, after, index, 0, base, end - base))
    return pieces
