"""The outbox file: its format, and the scan that finds the records in a run of bytes.

Theory of operation
-------------------
The file is a header and up to 256 *pieces* of equal size. A piece holds records and nothing else, back to back without
frames: msgpack arrays delimit themselves. A piece's contents are given in the header by two words of eight bytes, its
*state* (generation, count of records, where they end) and its *first* (generation, number of the first record). The
writer copies a record behind the last one and then publishes it with one aligned store, of the state. Pages of a
mapped file belong to the kernel, so what a state covers is whole, however and whenever the process dies.

Pieces are reused in turn, each time as another generation: the state of the new generation comes first, empty, then
the new first. A reader believes a first only where its generation is the state's, and what it has copied only where
the state's generation is still the same afterwards.

What travels as one batch is an *extent*. The writer notes each extent that has reached the size of a batch, or ends
with its piece, in a table: every piece has room for as many entries as it can have extents. An entry belongs to a
generation too, and has a checksum of its own, so that a half-written one is recognised.

The metadata is in two slots, of which one store chooses the valid one. Numbers are in the machine's own byte order,
because an outbox never leaves its host. `tlogs.outbox.version1` reads what tlogs 0.1 left.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgpack

from tlogs_shared.errors import MessageError
from tlogs_shared.storage.batch import TARGET_RAW_BYTES
from tlogs_shared.storage.record import FIRST_BYTES, HEAD_BYTES, fields, unpacker

__all__ = ["Entry", "Extent", "OutboxHeader", "Process", "piece_bytes", "scan", "skim", "start_bytes"]

PAGE_BYTES: Final = 16 * 1024
"""The largest page size in use (Apple silicon): header and pieces are whole multiples of it."""

MIN_CAPACITY: Final = 64 * 1024
"""Below this an outbox is a nuisance: two pieces of a few records each."""

MAX_PIECES: Final = 256
MAX_CAPACITY: Final = 8 << 30
"""256 pieces of 32 MiB, whose ends fit into a state."""

VERSION: Final = 2
_MAGIC: Final = b"TLOUTBX2"
_FIXED: Final = struct.Struct("=8sQ16s12Q")

ACKNOWLEDGED: Final = 6
"""Where the watermark is, counted in words of eight bytes, as all that follow."""
META: Final = 7
"""Which metadata slot is valid (bit 32) and how long it is (the bits below)."""
BEGUN: Final = 13
"""Where in the file the last append that began would put its record: in progress until the piece ends behind that."""
ALWAYS_BEGUN: Final = (1 << 64) - 1
"""At `BEGUN` while an append is in progress that may change the piece."""
ENDED: Final = 14
"""Not 0 once the process has closed this outbox: nothing follows, though it may live on."""

DROPS_OFFSET: Final = 128
DROPS_SLOTS: Final = 16
_DROP: Final = struct.Struct("=qQ")
"""A level and how many of its records were dropped since the stream began."""

_BOOT_OFFSET: Final = 384
BOOT_BYTES: Final = 16

HEADER_BYTES: Final = 16 * 1024
"""The fixed part of the header, with the metadata twice."""
_META_OFFSETS: Final = (512, 512 + (HEADER_BYTES - 512) // 2)
META_BYTES: Final = (HEADER_BYTES - 512) // 2
"""The largest metadata map that fits into a slot, packed."""

WORDS: Final = HEADER_BYTES // 8
"""Where the pieces' words are: state and first of piece 0, of piece 1, …"""
_ENTRIES_OFFSET: Final = HEADER_BYTES + MAX_PIECES * 16

COUNT_SHIFT: Final = 26
COUNT_MASK: Final = (1 << 22) - 1
END_MASK: Final = (1 << COUNT_SHIFT) - 1
GENERATION_SHIFT: Final = 48
MAX_GENERATION: Final = (1 << 16) - 1
"""Generations begin at 1, and after this one again: to mistake one for another a reader would have to sleep through so
many, each of which it would have had to acknowledge."""
FIRST_MASK: Final = (1 << GENERATION_SHIFT) - 1
RECORD: Final = 1 << COUNT_SHIFT
"""Added to a state for each record, beside its size."""

_ENTRY: Final = struct.Struct("=QQQIIIII")
_CHECK: Final = struct.Struct("=I")
ENTRY_BYTES: Final = _ENTRY.size + _CHECK.size


def piece_bytes(capacity: int) -> int:
    """The size of a piece: a sixteenth of the capacity, within limits, and never more than half of it.

    >>> piece_bytes(64 << 20) >> 20, piece_bytes(4 << 20) >> 20, piece_bytes(64 << 10) >> 10
    (4, 2, 32)
    """
    size = max(min(4 << 20, capacity // 16), min(2 << 20, capacity // 2), capacity // MAX_PIECES)
    return max(size - size % PAGE_BYTES, PAGE_BYTES)


def entries_a_piece(piece: int) -> int:
    """How many extents a piece can hold: every one but the last has the size of a batch."""
    return piece // TARGET_RAW_BYTES + 1


def start_bytes(capacity: int, piece: int) -> int:
    """Where the first piece begins."""
    end = _ENTRIES_OFFSET + capacity // piece * entries_a_piece(piece) * ENTRY_BYTES
    return end + -end % PAGE_BYTES


def entry_offset(piece: int, index: int, number: int) -> int:
    """Where in the file entry *number* of the piece with this index is; *piece* is the size of a piece."""
    return _ENTRIES_OFFSET + (index * entries_a_piece(piece) + number) * ENTRY_BYTES


@dataclass(frozen=True, slots=True)
class Extent:
    """A run of records of one piece: what travels as one batch.

    `level` is the highest level in it, `first_ts` and `last_ts` the first and last record's time.
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
class Entry:
    """The table's entry for a closed extent; `start` counts from the beginning of its piece."""

    generation: int
    first: int
    count: int
    level: int
    first_ts: int
    last_ts: int
    start: int
    size: int
    crc: int

    @property
    def end(self) -> int:
        """The number after the last record."""
        return self.first + self.count

    def pack(self) -> bytes:
        """The entry as bytes."""
        packed = _ENTRY.pack(
            self.generation << GENERATION_SHIFT | self.first,
            self.first_ts,
            self.last_ts,
            self.start,
            self.size,
            self.count,
            min(self.level, 0x7FFFFFFF),
            self.crc,
        )
        return packed + _CHECK.pack(zlib.crc32(packed))

    @classmethod
    def unpack(cls, data: bytes | memoryview) -> Entry | None:
        """Read an entry; None if it is incomplete or damaged."""
        if len(data) < ENTRY_BYTES or _CHECK.unpack_from(data, _ENTRY.size)[0] != zlib.crc32(data[: _ENTRY.size]):
            return None
        word, first_ts, last_ts, start, size, count, level, crc = _ENTRY.unpack_from(data)
        if word == 0 or count == 0:
            return None
        return cls(word >> GENERATION_SHIFT, word & FIRST_MASK, count, level, first_ts, last_ts, start, size, crc)


class Piece(NamedTuple):
    """A piece in use, as the header describes it: the numbers of its records, and where they are in the file."""

    first: int
    end: int
    slot: int
    state: int
    base: int
    size: int

    @property
    def generation(self) -> int:
        """Which of its uses this is."""
        return self.state >> GENERATION_SHIFT


def pieces_of(words: list[int], start: int, piece: int) -> list[Piece]:
    """The pieces in use by these words (state and first of each), in the order of their records."""
    found = []
    for index in range(len(words) // 2):
        state, first = words[2 * index], words[2 * index + 1]
        size = state & END_MASK
        if state >> GENERATION_SHIFT == first >> GENERATION_SHIFT != 0 and size <= piece:
            number = first & FIRST_MASK
            end = number + (state >> COUNT_SHIFT & COUNT_MASK)
            found.append(Piece(number, end, index, state, start + index * piece, size))
    found.sort()
    return found


@dataclass(frozen=True, slots=True)
class Process:
    """Which process writes an outbox; 0 and empty where the system cannot tell.

    `started` is field 22 of /proc/PID/stat; the namespaces are the inode numbers of /proc/PID/ns/pid and …/mnt; `boot`
    is the kernel's boot id.
    """

    pid: int = 0
    started: int = 0
    pid_namespace: int = 0
    mount_namespace: int = 0
    boot: bytes = bytes(BOOT_BYTES)


@dataclass(frozen=True, slots=True)
class OutboxHeader:
    """The fixed part of an outbox's header."""

    stream: bytes
    capacity: int
    piece: int
    acknowledged: int = 0
    meta: Mapping[str, Any] = field(default_factory=dict)
    dropped: Mapping[int, int] = field(default_factory=dict)
    process: Process = field(default_factory=Process)
    created_ns: int = 0
    ended: bool = False
    version: int = VERSION

    @property
    def start(self) -> int:
        """Where the first piece begins."""
        return start_bytes(self.capacity, self.piece)

    def pack(self) -> bytes:
        """The header as the first bytes of a new file.

        Raises:
            ValueError: the metadata is too large.
        """
        where, slot, meta = pack_meta(self.meta, 0)
        process = self.process
        packed = bytearray(HEADER_BYTES)
        _FIXED.pack_into(
            packed, 0, _MAGIC, VERSION, self.stream, self.capacity, self.piece, self.acknowledged, slot,
            process.pid, process.started, process.pid_namespace, process.mount_namespace, self.created_ns,
            0, int(self.ended), 0,
        )  # fmt: skip
        packed[_BOOT_OFFSET : _BOOT_OFFSET + BOOT_BYTES] = process.boot
        for index, (level, count) in enumerate(self.dropped.items()):
            _DROP.pack_into(packed, DROPS_OFFSET + index * _DROP.size, level, count)
        packed[where : where + len(meta)] = meta
        return bytes(packed)

    @classmethod
    def unpack(cls, data: bytes | memoryview) -> OutboxHeader:
        """Read a header.

        Raises:
            MessageError: too short, not a header, of another version, or with impossible sizes.
        """
        if len(data) < HEADER_BYTES:
            raise MessageError(f"expected an outbox, which has {HEADER_BYTES} bytes or more, found {len(data)}")
        (
            magic, version, stream, capacity, piece, acknowledged, slot,
            pid, started, pid_namespace, mount_namespace, created_ns, _, ended, _,
        ) = _FIXED.unpack_from(data)  # fmt: skip
        if magic != _MAGIC or version != VERSION:
            raise MessageError(f"expected an outbox of version {VERSION}, found {magic!r}, version {version}")
        check_sizes(capacity, piece)
        boot = bytes(data[_BOOT_OFFSET : _BOOT_OFFSET + BOOT_BYTES])
        process = Process(pid, started, pid_namespace, mount_namespace, boot)
        meta, dropped = unpack_meta(data, slot), unpack_dropped(data)
        return cls(stream, capacity, piece, acknowledged, meta, dropped, process, created_ns, bool(ended))


def check_sizes(capacity: int, piece: int) -> None:
    """Compare the sizes in a header with the limits.

    Raises:
        MessageError: no outbox has these.
    """
    if not (PAGE_BYTES <= piece <= capacity <= MAX_CAPACITY) or piece % PAGE_BYTES or capacity // piece > MAX_PIECES:
        raise MessageError(f"an outbox with pieces of {piece} bytes and a capacity of {capacity}")


def pack_meta(meta: Mapping[str, Any], previous: int) -> tuple[int, int, bytes]:
    """Where the metadata goes, what to store at `META` afterwards, and its bytes.

    *previous* is the word at `META` now: the other slot is written, so that a writer stopped in between leaves the
    old metadata valid.

    Raises:
        ValueError: it does not fit.
    """
    packed = msgpack.packb(meta, unicode_errors="surrogatepass")
    if len(packed) > META_BYTES:
        raise ValueError(f"metadata of {len(packed)} bytes, expected at most {META_BYTES}")
    slot = 1 - (previous >> 32 & 1)
    return _META_OFFSETS[slot], slot << 32 | len(packed), packed


def unpack_meta(data: bytes | memoryview, slot: int) -> dict[str, Any]:
    """The metadata that *slot*, the word at `META`, chooses; empty where it cannot be read."""
    where, size = _META_OFFSETS[slot >> 32 & 1], slot & 0xFFFFFFFF
    try:
        found = msgpack.unpackb(data[where : where + min(size, META_BYTES)], unicode_errors="surrogatepass")
    except (msgpack.UnpackException, ValueError, TypeError):  # msgpack's errors for bytes that are not msgpack
        return {}
    return found if isinstance(found, dict) else {}


def unpack_dropped(data: bytes | memoryview) -> dict[int, int]:
    """How many records of each level were dropped, from the header."""
    slots = (_DROP.unpack_from(data, DROPS_OFFSET + index * _DROP.size) for index in range(DROPS_SLOTS))
    return {level: count for level, count in slots if count}


def scan(data: memoryview, first: int, *, watermark: int = 0, after_ts: int = 0) -> Iterator[Extent]:
    """Cut the records in *data*, of which *first* is the first's number, into extents, from *watermark* on.

    Ends before the first bytes that are not a record, and before a record whose time is below that of the one before
    it (*after_ts* for the first): those were not written there by the outbox that is being read.
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
        except (MessageError, msgpack.UnpackException, ValueError, TypeError):  # whatever malformed bytes raise
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


def skim(data: memoryview, first: int, *, watermark: int = 0) -> Extent | None:
    """The first extent of `scan`, for records that their writer has published: a tenth of the cost.

    The records are skipped, not decoded; time and level are read where they are in the bytes.
    """
    reader = unpacker(len(data))
    reader.feed(data)
    skip, tell, size = reader.skip, reader.tell, len(data)
    start = offset = last = level = 0
    number = first
    try:
        while offset < size and offset - start < TARGET_RAW_BYTES:
            if data[offset] != FIRST_BYTES[0] or data[offset + 1] != FIRST_BYTES[1]:
                break
            skip()
            number += 1
            if number > watermark:
                last = offset
                found = data[offset + HEAD_BYTES]
                if found >= 0x80:
                    level = max(level, _long_level(data, offset + HEAD_BYTES))
                elif found > level:
                    level = found
                offset = tell()
            else:
                start = offset = tell()
    except (msgpack.UnpackException, ValueError, IndexError):  # not a record after all
        pass
    if offset == start:
        return None
    count = number - max(first, watermark)
    return Extent(number - count, count, level, _ts(data, start), _ts(data, last), data[start:offset])


def _ts(data: memoryview, offset: int) -> int:
    """The time of the record that begins at *offset*, which is always in the same place."""
    return int.from_bytes(data[offset + len(FIRST_BYTES) : offset + HEAD_BYTES], "big")


def _long_level(data: memoryview, offset: int) -> int:
    """A level above 127 or below 0, which takes more than one byte."""
    reader = unpacker(9)
    reader.feed(bytes(data[offset : offset + 9]))
    return int(reader.unpack())
