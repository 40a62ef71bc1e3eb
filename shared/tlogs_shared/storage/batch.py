"""A frame: header, payload and checksums, the same on the wire and on disk.

Theory of operation
-------------------
A frame is a fixed header and a payload. Two kinds exist: a *batch* (records of one stream, one behind the other,
compressed) and a *stream* frame (a msgpack map: what is known of one stream, see `tlogs_shared.storage.segment`). The
collector checks header and payload and stores both as they came; it never looks inside a batch. What a reader wants
to choose by (stream, number, time, level) is therefore in the header.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import islice
from typing import TYPE_CHECKING, Final

import msgpack

from tlogs_shared.errors import MessageError
from tlogs_shared.storage.record import MAX_RECORD_BYTES, RECORD_SLACK, Fields, fields, unpacker

if TYPE_CHECKING:
    import zstandard

__all__ = ["HEADER_BYTES", "MAX_RAW_BYTES", "Codec", "Header", "Kind", "check_payload", "pieces", "records", "seal"]

TARGET_RAW_BYTES: Final = 256 * 1024
"""A batch is cut when its records reach this size: large enough that its cost per record vanishes."""

MAX_RAW_BYTES: Final = TARGET_RAW_BYTES + 4 * MAX_RECORD_BYTES + RECORD_SLACK
"""No payload unpacks to more: a full batch and one record of the largest size in UTF-8, with room for its fields."""

MAX_PAYLOAD_BYTES: Final = MAX_RAW_BYTES + 1024
"""No payload is larger, compressed or not (zstd adds a few bytes to what does not shrink)."""

MIN_COMPRESSED_BYTES: Final = 256
"""Below this size compression gains less than its own header."""

_STRUCT: Final = struct.Struct("<4sBBH16sQIIIQQQI")
_CRC: Final = struct.Struct("<I")
MAGIC: Final = b"TLF1"
HEADER_BYTES: Final = _STRUCT.size + _CRC.size


class Kind(IntEnum):
    """The kind of a frame's payload."""

    BATCH = 1
    STREAM = 2


class Codec(IntEnum):
    """How the payload of a frame is stored."""

    PLAIN = 0
    ZSTD = 1


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a frame.

    `first` and `count` number the records in their stream; `first_ts` and `last_ts` are the first and last record's
    time in nanoseconds; `low_ts` promises that nothing older will follow in this stream; `level` is the highest
    level in the batch; `size` is the payload's size as stored, `raw_size` unpacked; `recovered` marks what was
    brought in from a dead worker's outbox.
    """

    stream: bytes
    kind: Kind = Kind.BATCH
    codec: Codec = Codec.PLAIN
    recovered: bool = False
    level: int = 0
    first: int = 0
    count: int = 0
    raw_size: int = 0
    size: int = 0
    first_ts: int = 0
    last_ts: int = 0
    low_ts: int = 0
    payload_crc: int = 0

    @property
    def end(self) -> int:
        """The number after the last record: the stream's watermark once this batch is stored."""
        return self.first + self.count

    def pack(self) -> bytes:
        """The header as bytes."""
        packed = _STRUCT.pack(
            MAGIC,
            self.kind,
            self.codec | (_RECOVERED if self.recovered else 0),
            min(max(self.level, 0), 0xFFFF),
            self.stream,
            self.first,
            self.count,
            self.raw_size,
            self.size,
            self.first_ts,
            self.last_ts,
            self.low_ts,
            self.payload_crc,
        )
        return packed + _CRC.pack(zlib.crc32(packed))

    @classmethod
    def unpack(cls, data: bytes | memoryview) -> Header:
        """Read a header; bytes after it are not looked at.

        Raises:
            MessageError: too short, not a header, damaged, or sizes beyond the limits.
        """
        if len(data) < HEADER_BYTES:
            raise MessageError(f"expected a frame header of {HEADER_BYTES} bytes, found {len(data)}")
        found = _STRUCT.unpack_from(data)
        if found[0] != MAGIC:
            raise MessageError(f"expected a frame, which begins with {MAGIC!r}, found {found[0]!r}")
        if _CRC.unpack_from(data, _STRUCT.size)[0] != zlib.crc32(data[: _STRUCT.size]):
            raise MessageError("a frame header with a wrong checksum")
        _, kind, codec, level, stream, first, count, raw_size, size, first_ts, last_ts, low_ts, payload_crc = found
        try:
            header = cls(
                stream=stream,
                kind=Kind(kind),
                codec=Codec(codec & ~_RECOVERED),
                recovered=bool(codec & _RECOVERED),
                level=level,
                first=first,
                count=count,
                raw_size=raw_size,
                size=size,
                first_ts=first_ts,
                last_ts=last_ts,
                low_ts=low_ts,
                payload_crc=payload_crc,
            )
        except ValueError as error:
            raise MessageError(f"a frame of an unknown sort: {error}") from None
        if raw_size > MAX_RAW_BYTES or size > MAX_PAYLOAD_BYTES or count > raw_size or first + count > _MAX_NUMBER:
            raise MessageError("a frame beyond the size limits")
        return header


_RECOVERED: Final = 0x80
_MAX_NUMBER: Final = 2**63 - 1


def seal(
    header: Header, raw: bytes | memoryview, compressor: zstandard.ZstdCompressor | None = None
) -> tuple[Header, bytes]:
    """Make the payload of *raw* and the header that goes with it."""
    if compressor is not None and len(raw) >= MIN_COMPRESSED_BYTES:
        payload, codec = compressor.compress(raw), Codec.ZSTD
    else:
        payload, codec = bytes(raw), Codec.PLAIN
    sealed = replace(header, codec=codec, raw_size=len(raw), size=len(payload), payload_crc=zlib.crc32(payload))
    return sealed, payload


def check_payload(header: Header, payload: bytes | memoryview) -> None:
    """Compare the payload with its header.

    Raises:
        MessageError: it is not the payload that the header was made for.
    """
    if len(payload) != header.size:
        raise MessageError(f"expected a payload of {header.size} bytes, found {len(payload)}")
    if zlib.crc32(payload) != header.payload_crc:
        raise MessageError("a payload with a wrong checksum")


def raw_payload(header: Header, payload: bytes | memoryview) -> bytes:
    """The payload unpacked.

    Raises:
        MessageError: it does not unpack to `raw_size` bytes.
    """
    if header.codec is Codec.PLAIN:
        raw = bytes(payload)
    else:
        import zstandard  # a worker, which reads no batch, does not load it

        try:
            # The decompressor allocates the size that the frame claims, whatever bound it is given:
            # a few hostile bytes could ask for gigabytes.
            declared = zstandard.get_frame_parameters(payload).content_size
            if declared not in (header.raw_size, zstandard.CONTENTSIZE_UNKNOWN):
                raise MessageError(f"expected {header.raw_size} unpacked bytes, found a payload of {declared}")
            raw = zstandard.ZstdDecompressor().decompress(payload, max_output_size=header.raw_size)
        except zstandard.ZstdError as error:
            raise MessageError(f"a payload that does not unpack: {error}") from None
    if len(raw) != header.raw_size:
        raise MessageError(f"expected {header.raw_size} unpacked bytes, found {len(raw)}")
    return raw


def records(header: Header, payload: bytes | memoryview) -> Sequence[Fields]:
    """The records of a batch.

    Raises:
        MessageError: the payload does not hold what the header says.
    """
    return [record for piece in pieces(header, payload, header.count + 1) for record in piece]


def pieces(header: Header, payload: bytes | memoryview, size: int) -> Iterator[list[Fields]]:
    """The records of a batch, *size* at a time: decoded, they take five times the memory of their bytes.

    Raises:
        MessageError: the payload does not match the header; everything yielded before is good.
    """
    raw = raw_payload(header, payload)
    reader = unpacker(len(raw))
    left = header.count
    try:
        reader.feed(raw)
        while found := list(islice(reader, min(size, left + 1))):
            left -= len(found)
            if left < 0:
                break
            yield [fields(values) for values in found]
    except MessageError:
        raise
    except (msgpack.UnpackException, ValueError, TypeError) as error:
        raise MessageError(f"a batch that is not msgpack: {error or type(error).__name__}") from None
    if left or reader.tell() != len(raw):
        raise MessageError(f"expected {header.count} records, found {'more' if left <= 0 else header.count - left}")
