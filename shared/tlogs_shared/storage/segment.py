"""A segment: one file of a run, and how it is read back.

Theory of operation
-------------------
A segment is a file header of fixed size and then frames, one behind the other, as `tlogs_shared.storage.batch` has
them. It can be read without any other: the stream frame of every stream with a batch in it comes before that batch.
One life of one daemon writes a segment, and only at its end; a daemon that continues a run begins a new one.

Three things in the file header make a run's end certain after a crash. The *mark* tells up to where the file is known
to be on the disk; it is written after each sync, in place, and as segments are synced in their order, a mark in a
later segment vouches for all earlier ones whole. `previous` names the segment before this one and its end, so a
segment that lost its end, or is missing, is noticed by the one after it. Behind the last mark nothing was
acknowledged: what does not fit together there is cut off. Before it nothing is ever cut: damage there is skipped
to the next sound frame.

A *thinned* segment is a rewritten one: batches without a WARNING were taken out to save space. Its offsets are counted
from `THINNED_BASE`, so that a position from before is not mistaken for one in the new file.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NamedTuple

import msgpack

from tlogs_shared.errors import MessageError
from tlogs_shared.origin import StreamInfo
from tlogs_shared.storage.batch import HEADER_BYTES, MAGIC, Header, Kind, check_payload, raw_payload, seal
from tlogs_shared.storage.position import START, Position

__all__ = [
    "FILE_HEADER_BYTES",
    "MARK_OFFSET",
    "THINNED_BASE",
    "Ending",
    "Frame",
    "Scan",
    "SegmentHeader",
    "frame_end",
    "pack_mark",
    "pack_stream",
    "unpack_mark",
    "unpack_stream",
]

FILE_HEADER_BYTES: Final = 256
"""Fixed, so that the frames are found even where the file header is damaged."""

MARK_OFFSET: Final = 240
"""The mark's offset in the file; it never crosses a sector, so it is written whole or not at all."""

THINNED_BASE: Final = 1 << 40
"""Added to the offsets of a thinned segment; no segment grows that large."""

_FILE_MAGIC: Final = b"TLSG"
_VERSION: Final = 1
_THINNED: Final = 1
_FILE: Final = struct.Struct("<4sHHIIQ128s")
_MARK: Final = struct.Struct("<Q")
_CRC: Final = struct.Struct("<I")

_WINDOW_BYTES: Final = 4096
"""One page is read at a time: it holds the headers of many small frames, and little of the payload of a large one."""

_SEARCH_BYTES: Final = 1 << 20

Read = Callable[[int, int], bytes]
"""`read(size, offset)`: bytes of a file; fewer than *size* only at its end."""


def frame_end(header: Header, position: Position) -> Position:
    """Where the frame at *position* ends."""
    return Position(position.segment, position.offset + HEADER_BYTES + header.size)


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """The beginning of a segment.

    `run` is the run's name when the file was made; the directory may have been renamed since. `previous` is the end
    of the segment before this one, (0, 0) where there was none.
    """

    run: str
    number: int
    previous: Position = START
    thinned: bool = False

    @property
    def base(self) -> int:
        """Added to an offset in the file to get a position's offset."""
        return THINNED_BASE if self.thinned else 0

    def follows(self, end: Position) -> bool:
        """Whether this segment came right after what ended at *end*. Thinning a segment moves its end."""
        return self.previous == end or (end.offset >= THINNED_BASE and self.previous.segment == end.segment)

    def pack(self) -> bytes:
        """The file header as bytes, with an empty mark."""
        packed = _FILE.pack(
            _FILE_MAGIC,
            _VERSION,
            _THINNED if self.thinned else 0,
            self.number,
            self.previous.segment,
            self.previous.offset,
            self.run.encode(),
        )
        return (packed + _CRC.pack(zlib.crc32(packed))).ljust(FILE_HEADER_BYTES, b"\0")

    @classmethod
    def unpack(cls, data: bytes) -> SegmentHeader:
        """Read a file header; bytes after it are not looked at.

        Raises:
            MessageError: too short, no segment, damaged, or of a version that is not known here.
        """
        if len(data) < FILE_HEADER_BYTES:
            raise MessageError(f"expected a file header of {FILE_HEADER_BYTES} bytes, found {len(data)}")
        magic, version, flags, number, before, end, run = _FILE.unpack_from(data)
        if magic != _FILE_MAGIC:
            raise MessageError(f"expected a segment, which begins with {_FILE_MAGIC!r}, found {magic!r}")
        if _CRC.unpack_from(data, _FILE.size)[0] != zlib.crc32(data[: _FILE.size]):
            raise MessageError("a file header with a wrong checksum")
        if version != _VERSION:
            raise MessageError(
                f"a segment of version {version}, this tlogs reads version {_VERSION}; install a newer one"
            )
        name = run.rstrip(b"\0").decode(errors="replace")
        return cls(run=name, number=number, previous=Position(before, end), thinned=bool(flags & _THINNED))


def pack_mark(end: int) -> bytes:
    """A mark: everything below the offset *end* of this file is on the disk."""
    packed = _MARK.pack(end)
    return packed + _CRC.pack(zlib.crc32(packed))


def unpack_mark(data: bytes) -> int:
    """The mark in a file header, 0 where there is no mark."""
    if len(data) < FILE_HEADER_BYTES:
        return 0
    packed = data[MARK_OFFSET : MARK_OFFSET + _MARK.size]
    if _CRC.unpack_from(data, MARK_OFFSET + _MARK.size)[0] != zlib.crc32(packed):
        return 0
    return int(_MARK.unpack(packed)[0])


def pack_stream(stream: bytes, info: StreamInfo, watermark: int) -> tuple[Header, bytes]:
    """A stream frame. Its `first` is the stream's watermark, which so outlives the batches that it came from."""
    raw: bytes = msgpack.packb(info.as_map(), unicode_errors="surrogatepass")
    return seal(Header(stream=stream, kind=Kind.STREAM, first=watermark), raw)


def unpack_stream(header: Header, payload: bytes) -> StreamInfo:
    """The stream described by a stream frame.

    Raises:
        MessageError: it is not a stream frame, or damaged.
    """
    check_payload(header, payload)
    raw = raw_payload(header, payload)
    try:
        values: Any = msgpack.unpackb(raw, strict_map_key=False, unicode_errors="surrogatepass")
    except (msgpack.UnpackException, ValueError, TypeError) as error:
        raise MessageError(f"a stream frame that is not msgpack: {error or type(error).__name__}") from None
    return StreamInfo.from_map(values)


class Frame(NamedTuple):
    """A frame that was found: its header and where in the file it begins."""

    header: Header
    offset: int

    @property
    def payload_offset(self) -> int:
        """Where its payload begins."""
        return self.offset + HEADER_BYTES

    @property
    def end(self) -> int:
        """Where the next frame begins."""
        return self.offset + HEADER_BYTES + self.header.size


class Ending(Enum):
    """Why a scan came to its end."""

    CLEAN = "clean"
    """The last frame ends where the file ends."""
    TORN = "torn"
    """The last frame is not all there: it is being written, or its writer was stopped."""
    DAMAGED = "damaged"
    """There is no frame."""


class Scan:
    """The frames of one segment, in order, found without reading their payloads.

    `end` is the end of the last frame yielded; after the iteration `why` tells why it ended.
    With `verify` the payloads are read too and compared with their checksums. With `skip` damage does not end the
    scan: it goes on at the next sound frame, and `damage` lists what was skipped, as (from, to).
    """

    def __init__(
        self, read: Read, size: int, start: int = FILE_HEADER_BYTES, *, verify: bool = False, skip: bool = False
    ) -> None:
        self._read = read
        self._size = size
        self._verify = verify
        self._skip = skip
        self.end = start
        self.why = Ending.CLEAN
        self.damage: list[tuple[int, int]] = []

    def __iter__(self) -> Iterator[Frame]:
        offset = self.end
        window, base = b"", offset
        while offset < self._size:
            if offset + HEADER_BYTES > base + len(window):
                base, window = offset, self._read(min(_WINDOW_BYTES, self._size - offset), offset)
                if len(window) < HEADER_BYTES:
                    self.why = Ending.TORN
                    return
            found: int | None
            try:
                frame = Frame(Header.unpack(window[offset - base : offset - base + HEADER_BYTES]), offset)
            except MessageError:
                sound, found = False, self._next_sound(offset + 1) if self._skip else None
            else:
                if frame.end > self._size:
                    self.why = Ending.TORN
                    return
                # A sound header's size is to be trusted: nothing is looked for inside a damaged payload.
                sound, found = not self._verify or self._is_sound(frame), frame.end
            if not sound:
                if not self._skip or found is None:
                    self.why = Ending.DAMAGED
                    return
                self.damage.append((offset, found))
                offset = self.end = found
                continue
            offset = self.end = frame.end
            yield frame

    def _next_sound(self, start: int) -> int | None:
        """The offset of the first whole frame at or after *start*, its payload checked."""
        while self._size - start >= HEADER_BYTES:
            # Neighbouring pieces overlap, so that a header across their border is seen.
            piece = self._read(min(_SEARCH_BYTES, self._size - start), start)
            at = piece.find(MAGIC)
            while at >= 0:
                try:
                    frame = Frame(Header.unpack(self._read(HEADER_BYTES, start + at)), start + at)
                    if self._is_sound(frame):
                        return frame.offset
                except MessageError:
                    pass  # the four bytes were something else
                at = piece.find(MAGIC, at + 1)
            if len(piece) < HEADER_BYTES:
                return None
            start += len(piece) - len(MAGIC) + 1
        return None

    def _is_sound(self, frame: Frame) -> bool:
        try:
            check_payload(frame.header, self._read(frame.header.size, frame.payload_offset))
        except MessageError:
            return False
        return True
