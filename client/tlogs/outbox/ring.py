"""The outbox file: its format, and the scan that finds the records in what a dead process left behind.

Theory of operation
-------------------
The file is one header and a chain of *pieces* of equal size. A piece is a small header and records, one behind the
other without frames: msgpack arrays delimit themselves. The writer copies a record behind the last one and then
publishes where it *ends* with one aligned store of eight bytes. Pages of a mapped file belong to the kernel, so what is
below *end* is whole, however and whenever the process dies.

Pieces are reused in turn; each says the number of its first record, which gives their order. A piece is begun anew in
the order *end = its own beginning*, *first = n*, records: a writer stopped in between leaves a piece without records.

The metadata lies in two slots, of which one store chooses the valid one. Numbers are in the machine's own byte order,
because an outbox never leaves its host.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgpack

from tlogs_shared.errors import MessageError
from tlogs_shared.storage.batch import TARGET_RAW_BYTES
from tlogs_shared.storage.record import FIRST_BYTES, fields, unpacker

__all__ = ["Extent", "FileHeader", "piece_bytes", "read_piece_header", "scan"]

PAGE: Final = 4096
START_BYTES: Final = 16 * 1024
"""Where the first piece begins: the largest page size in use (Apple silicon), and room for the metadata twice."""

MIN_CAPACITY_BYTES: Final = 64 * 1024
"""Below this an outbox is a nuisance: two pieces of a few records each."""

VERSION: Final = 1
_MAGIC: Final = b"TLOUTBX1"
_FIXED: Final = struct.Struct(
    "=8sQ16sQQQQ"
)  # magic, version, stream, capacity, piece size, acknowledged, metadata slot
ACKNOWLEDGED_INDEX: Final = 6
"""Where the watermark stands, counted in numbers of eight bytes."""
META_INDEX: Final = 7
"""Where it stands which metadata slot is valid (bit 32) and how long it is (the bits below)."""

DROPS_OFFSET: Final = 128
DROPS_SLOTS: Final = 16
_DROP: Final = struct.Struct("=qQ")
"""A level and how many of its records were dropped since the stream began."""

_META_OFFSETS: Final = (512, 512 + (START_BYTES - 512) // 2)
META_BYTES: Final = (START_BYTES - 512) // 2
"""The largest metadata map that fits into a slot, packed."""

_PIECE: Final = struct.Struct("=8sQQ")  # magic, number of the first record, where in the file the last one ends
_PIECE_MAGIC: Final = b"TLPIECE1"
PIECE_HEADER_BYTES: Final = 64
FIRST_INDEX: Final = 1
END_INDEX: Final = 2
"""Where first and end stand in a piece, counted in numbers of eight bytes from its beginning."""


def piece_bytes(capacity: int) -> int:
    """The size of a piece: a sixteenth of the capacity, within limits, and never more than half of it.

    >>> piece_bytes(64 << 20) >> 20, piece_bytes(4 << 20) >> 20, piece_bytes(64 << 10) >> 10
    (4, 2, 32)
    """
    size = max(min(4 << 20, capacity // 16), min(2 << 20, capacity // 2))
    return max(size - size % START_BYTES, START_BYTES)


@dataclass(frozen=True, slots=True)
class Extent:
    """A run of records that lie one behind the other in one piece: what travels as one batch.

    `view` is a window into the outbox and holds until the extent is acknowledged. `level` is the highest level in it,
    `first_ts` and `last_ts` the first and last record's time.
    """

    first: int
    count: int
    level: int
    first_ts: int
    last_ts: int
    view: memoryview

    @property
    def end(self) -> int:
        """The number after the last record."""
        return self.first + self.count


@dataclass(frozen=True, slots=True)
class FileHeader:
    """The header of an outbox file."""

    stream: bytes
    capacity: int
    piece: int
    acknowledged: int = 0
    meta: Mapping[str, Any] = field(default_factory=dict)
    dropped: Mapping[int, int] = field(default_factory=dict)

    def pack(self) -> bytes:
        """The header as the first bytes of a new file.

        Raises:
            ValueError: the metadata is too large.
        """
        where, slot, meta = pack_meta(self.meta, 0)
        packed = bytearray(START_BYTES)
        _FIXED.pack_into(packed, 0, _MAGIC, VERSION, self.stream, self.capacity, self.piece, self.acknowledged, slot)
        for index, (level, count) in enumerate(self.dropped.items()):
            _DROP.pack_into(packed, DROPS_OFFSET + index * _DROP.size, level, count)
        packed[where : where + len(meta)] = meta
        return bytes(packed)

    @classmethod
    def unpack(cls, data: bytes) -> FileHeader:
        """Read a header.

        Raises:
            MessageError: too short, not a header, of another version, or with impossible sizes.
        """
        if len(data) < START_BYTES:
            raise MessageError(f"expected an outbox, which has {START_BYTES} bytes or more, found {len(data)}")
        magic, version, stream, capacity, piece, acknowledged, slot = _FIXED.unpack_from(data)
        if magic != _MAGIC or version != VERSION:
            raise MessageError(f"expected an outbox of version {VERSION}, found {magic!r}, version {version}")
        if not (PIECE_HEADER_BYTES < piece <= capacity) or piece % PAGE:
            raise MessageError(f"an outbox with pieces of {piece} bytes and a capacity of {capacity}")
        return cls(stream, capacity, piece, acknowledged, unpack_meta(data, slot), _dropped(data))


def pack_meta(meta: Mapping[str, Any], previous: int) -> tuple[int, int, bytes]:
    """Where the metadata goes, what to store at `META_INDEX` afterwards, and its bytes.

    *previous* is what stands at `META_INDEX` now: the other slot is written, so that a writer stopped in between
    leaves the old metadata valid.

    Raises:
        ValueError: it does not fit.
    """
    packed = msgpack.packb(meta, unicode_errors="surrogatepass")
    if len(packed) > META_BYTES:
        raise ValueError(f"metadata of {len(packed)} bytes, expected at most {META_BYTES}")
    slot = 1 - (previous >> 32 & 1)
    return _META_OFFSETS[slot], slot << 32 | len(packed), packed


def unpack_meta(data: bytes, slot: int) -> dict[str, Any]:
    """The metadata that *slot*, the number at `META_INDEX`, chooses; empty where it cannot be read."""
    where, size = _META_OFFSETS[slot >> 32 & 1], slot & 0xFFFFFFFF
    try:
        found = msgpack.unpackb(data[where : where + min(size, META_BYTES)], unicode_errors="surrogatepass")
    except (msgpack.UnpackException, ValueError, TypeError):  # msgpack's errors for bytes that are no msgpack
        return {}
    return found if isinstance(found, dict) else {}


def _dropped(data: bytes) -> dict[int, int]:
    slots = (_DROP.unpack_from(data, DROPS_OFFSET + index * _DROP.size) for index in range(DROPS_SLOTS))
    return {level: count for level, count in slots if count}


def pack_piece_header(base: int, first: int) -> bytes:
    """The header of a piece without records that begins at *base* in the file."""
    return _PIECE.pack(_PIECE_MAGIC, first, base + PIECE_HEADER_BYTES).ljust(PIECE_HEADER_BYTES, b"\0")


def read_piece_header(data: bytes | memoryview) -> tuple[int, int] | None:
    """The number of the first record, and where in the file the last one ends; None for a piece that was never used.

    >>> read_piece_header(pack_piece_header(4096, 7)), read_piece_header(bytes(64))
    ((7, 4160), None)
    """
    if len(data) < PIECE_HEADER_BYTES:
        return None
    magic, first, end = _PIECE.unpack_from(data)
    return (first, end) if magic == _PIECE_MAGIC else None


def scan(data: memoryview, first: int, *, watermark: int = 0, after_ts: int = 0) -> Iterator[Extent]:
    """Cut the records in *data*, of which *first* is the first's number, into extents, from *watermark* on.

    Ends before the first bytes that are no record, and before a record whose time is below that of the one before it
    (*after_ts* for the first): those were not written there by the outbox that is being read.
    """
    reader = unpacker(len(data))
    reader.feed(data)
    number, offset = first, 0
    start, count, level, first_ts, last_ts = 0, 0, 0, 0, after_ts
    while True:
        try:
            if bytes(data[offset : offset + len(FIRST_BYTES)]) != FIRST_BYTES:
                break
            record = fields(reader.unpack())
        except (MessageError, msgpack.UnpackException, ValueError, TypeError):  # whatever bytes that are no record give
            break
        if record.ts < last_ts:
            break
        last_ts, offset, number = record.ts, reader.tell(), number + 1
        if number <= watermark:
            start = offset
            continue
        if count == 0:
            first_ts = record.ts
        count, level = count + 1, max(level, record.levelno)
        if offset - start >= TARGET_RAW_BYTES:
            yield Extent(number - count, count, level, first_ts, last_ts, data[start:offset])
            start, count, level = offset, 0, 0
    if count:
        yield Extent(number - count, count, level, first_ts, last_ts, data[start:offset])
