"""One log record as bytes.

Theory of operation
-------------------
A record is packed once, in the logging call, as a msgpack array of `FIELDS`. Those bytes are kept in the outbox, cross
the wire and are stored in the segment unchanged. msgpack arrays delimit themselves, so a run of records is their plain
concatenation, without frames: it compresses better, and a reader decodes it at the speed of the C unpacker.

The array starts with two fixed things, so that the outbox can put the time stamp in front of fields that were packed
before: one byte (an array of eleven) and nine bytes (the time as an unsigned 64-bit integer).

`extra` is nil for most records, else a map with some of the keys `artifact`, `component`, `cut`, `exc`, `fields`,
`levelname`, `stack`, `stream` and `trace_id`: `fields` is what the caller gave as ``extra=``; `levelname` is there
only where the level has a name of the program's own; `stream` is ``stdout``, ``stderr`` or ``tlogs`` (our own), absent
for a log record; `cut` counts characters that were left out of a message over the limit.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgpack

from tlogs_shared.errors import MessageError
from tlogs_shared.level_names import level_name

__all__ = [
    "MAX_ARGS",
    "MAX_RECORD_BYTES",
    "Fields",
    "fields",
    "message_of",
    "pack",
    "pack_body",
    "record_level",
    "unpack",
]

MAX_RECORD_BYTES: Final = 1024 * 1024
"""A message up to this size travels whole; of a longer one the beginning travels, with a mark of what is missing."""

MAX_ARGS: Final = 1024
"""Arguments that may travel beside the template; with more the message is settled at the rank."""

MAX_ITEMS: Final = 4 * MAX_ARGS
"""No array or map in a record is longer: an unpacker makes room for what a few bytes only claim."""

RECORD_SLACK: Final = 64 * 1024
"""The room for the other fields of a record, beside a message of full size."""

_HEAD: Final = struct.Struct(">BBQ")
_ARRAY_OF_11: Final = 0x9B
_UINT64: Final = 0xCF
HEAD_BYTES: Final = _HEAD.size
FIRST_BYTES: Final = bytes([_ARRAY_OF_11, _UINT64])


class Fields(NamedTuple):
    """The fields of a packed record, in their order on the wire.

    `args` is a list or a map of primitives where the message is `template % args`, and nil where the message was
    settled at the rank; `message` is nil where it can be made from `template` and `args`.
    """

    ts: int
    levelno: int
    logger: str
    template: str
    args: Sequence[Any] | Mapping[str, Any] | None
    message: str | None
    path: str
    line: int
    func: str
    thread: str
    extra: Mapping[str, Any] | None


def pack_body(values: Sequence[Any]) -> bytes:
    """The bytes of the ten fields after the time stamp.

    Raises:
        ValueError, TypeError, OverflowError: a value that msgpack cannot express, as `msgpack.packb` raises them.
    """
    return b"".join([msgpack.packb(value, unicode_errors="surrogatepass") for value in values])


def pack(record: Fields) -> bytes:
    """The whole record as bytes.

    >>> unpack(pack(Fields(1, 20, "a", "x %d", [1], None, "a.py", 1, "f", "MainThread", None))).args
    [1]
    """
    return _HEAD.pack(_ARRAY_OF_11, _UINT64, record.ts) + pack_body(record[1:])


def unpacker(size: int) -> msgpack.Unpacker:
    """An unpacker for at most *size* bytes of records."""
    most = min(max(size, 1), MAX_ITEMS)
    return msgpack.Unpacker(
        max_buffer_size=max(size, 1),
        max_array_len=most,
        max_map_len=most,
        strict_map_key=False,
        unicode_errors="surrogatepass",
        raw=False,
    )


def fields(values: Any) -> Fields:
    """Check what an unpacker gave and name its parts.

    Raises:
        MessageError: *values* is not a record.
    """
    if type(values) is not list or len(values) != 11:
        raise MessageError(f"expected a record, an array of 11 fields, found {type(values).__name__}")
    ts, levelno, logger, template, args, message, path, line, func, thread, extra = values
    if not (
        type(ts) is int
        and ts >= 0
        and type(levelno) is int
        and type(logger) is str
        and type(template) is str
        and (args is None or type(args) is list or type(args) is dict)
        and (message is None or type(message) is str)
        and type(path) is str
        and type(line) is int
        and type(func) is str
        and type(thread) is str
        and (extra is None or type(extra) is dict)
    ):
        raise MessageError("a field of a record has the wrong type")
    return Fields(ts, levelno, logger, template, args, message, path, line, func, thread, extra)


def unpack(data: bytes) -> Fields:
    """Read one record.

    Raises:
        MessageError: *data* is not a record.
    """
    found = list(unpack_all(data))
    if len(found) != 1:
        raise MessageError(f"expected one record, found {len(found)}")
    return found[0]


def unpack_all(data: bytes) -> Iterator[Fields]:
    """Read records that follow each other without a gap.

    Raises:
        MessageError: *data* is not a whole number of records.
    """
    reader = unpacker(len(data))
    try:
        reader.feed(data)
        for values in reader:
            yield fields(values)
    except MessageError:
        raise
    except (msgpack.UnpackException, ValueError, TypeError) as error:  # msgpack's errors for malformed bytes
        raise MessageError(f"bytes that are not a record: {error or type(error).__name__}") from None
    if reader.tell() != len(data):
        raise MessageError(f"{len(data) - reader.tell()} bytes after the last whole record")


def record_level(levelno: int, extra: Mapping[str, Any] | None) -> str:
    """The name of a record's level: the one the program gave it, if it did, else the usual one.

    >>> record_level(30, None), record_level(35, {"levelname": "NOTICE"})
    ('WARNING', 'NOTICE')
    """
    return str(extra["levelname"]) if extra is not None and "levelname" in extra else level_name(levelno)


def message_of(record: Fields) -> str:
    """The message as the program meant it, never an exception.

    Where the arguments do not fit the template, both are shown: logging would have printed its own error then, and
    the record is worth more than the complaint.
    """
    if record.message is not None:
        return record.message
    template, args = record.template, record.args
    if args is None:
        return template
    if template in _TAME or _is_tame(template, args):
        try:
            return template % (args if type(args) is dict else tuple(args))
        except (TypeError, ValueError, KeyError, OverflowError, MemoryError):
            pass
    return f"{template} {args!r} (the arguments do not fit the template)"


_TAME: Final[set[str]] = set()
"""Templates that were found to be tame; a training job has some hundreds, each used again and again."""

_TAME_KEPT: Final = 4096
_WIDEST: Final = 1_000_000
_FLAGS: Final = 40
"""Further back than any program puts the % of a field."""
_LARGE: Final = re.compile(r"\d{7,}")


def _is_tame(template: str, args: Sequence[Any] | Mapping[str, Any]) -> bool:
    """Return True if no field is wider than any message may be: `%999999999d` would take a reader's memory."""
    if "*" in template:
        values = args.values() if isinstance(args, Mapping) else args
        return not any(type(value) is int and abs(value) >= _WIDEST for value in values)
    for match in _LARGE.finditer(template):
        before = template[max(match.start() - _FLAGS, 0) : match.start()].rstrip("-+ #.0123456789")
        if before.endswith(("%", ")")) or (not before and match.start() >= _FLAGS):
            return False
    if len(_TAME) < _TAME_KEPT:
        _TAME.add(template)
    return True
