"""Messages as frames of bytes, and back.

A message is one frame: the protocol's version (one byte), the message's letter (one byte), and the fields as a msgpack
array; a `Batch` has its header and its payload there instead. Never two frames: a peer that stops between them ends the
other process (an assertion of libzmq 4.3.5). Sizes are checked before anything is unpacked, types after.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Annotated, Any, Final, Union, get_args, get_origin, get_type_hints

import msgpack

from tlogs_shared.end import End
from tlogs_shared.errors import MessageError
from tlogs_shared.origin import STREAM_ID_BYTES, Origin
from tlogs_shared.protocol import messages
from tlogs_shared.protocol.messages import Batch, Message
from tlogs_shared.storage.batch import HEADER_BYTES, MAX_PAYLOAD_BYTES, Header, Kind, check_payload

__all__ = ["MAX_FRAME_BYTES", "VERSION", "VersionError", "decode", "encode", "pack_plain", "unpack_plain"]

VERSION: Final = 2
"""Raised whenever a message changes its meaning; a collector says so to a peer of another version."""

HEAD_BYTES: Final = 2
"""Version and letter."""

MAX_FRAME_BYTES: Final = max(HEAD_BYTES + HEADER_BYTES + MAX_PAYLOAD_BYTES, 8 * 1024 * 1024)
"""No frame is larger; the socket itself refuses one that is."""

MAX_FIELDS: Final = (16 * 1024, 64)
"""Bytes of a message's fields, and elements in one array or map: an honest hello has a twentieth of it. The decoder
makes room for as many elements as an array says it has, a thousand arrays deep, so this bounds what a stranger costs.
"""

LARGER_FIELDS: Final[dict[type[Any], tuple[int, int]]] = {
    messages.Ack: (256 * 1024, 8192),
    messages.Applied: (8 * 1024 * 1024, 8192),
    messages.Heartbeat: (2 * 1024 * 1024, 8192),
    messages.Change: (256 * 1024, 4096),
    messages.Settings: (8 * 1024 * 1024, 4096),
    messages.Report: (8 * 1024 * 1024, 200_000),  # a row for each of 20,000 ranks
    messages.Page: (2 * 1024 * 1024, 64),
}
"""The same for the messages that say much; a rank or an operator has been admitted before it can send one."""

MAX_DEPTH: Final = 16
"""Maps and arrays in each other; what is deeper could not be packed again."""

_LETTERS: Final[dict[str, type[Any]]] = {
    "H": messages.Hello,
    "B": messages.Batch,
    "h": messages.Heartbeat,
    "p": messages.Applied,
    "X": messages.Bye,
    "W": messages.Welcome,
    "A": messages.Ack,
    "R": messages.Rewind,
    "b": messages.Beat,
    "S": messages.Settings,
    "?": messages.Stranger,
    "N": messages.Refused,
    "a": messages.Ask,
    "c": messages.Change,
    "r": messages.Report,
    "f": messages.Follow,
    "n": messages.News,
    "g": messages.Fetch,
    "G": messages.Page,
}
_LETTER_OF: Final = {kind: letter for letter, kind in _LETTERS.items()}


class VersionError(MessageError):
    """The peer speaks another version of the protocol."""


def encode(message: Message) -> bytes:
    """The frame of *message*."""
    kind = type(message)
    head = bytes([VERSION, ord(_LETTER_OF[kind])])
    if isinstance(message, Batch):
        return b"".join((head, message.header.pack(), message.payload))
    values = [getattr(message, name) for name, _ in _CHECKS[kind]]
    packed: bytes = msgpack.packb(values, default=_as_map, unicode_errors="surrogatepass")
    return head + packed


def decode(frame: bytes) -> Message:
    """The message in *frame*.

    Raises:
        VersionError: the peer speaks another version.
        MessageError: no message, or one beyond the limits.
    """
    if len(frame) < HEAD_BYTES:
        raise MessageError("expected a message, which has two bytes at least")
    version, letter = frame[0], frame[1]
    if version != VERSION:
        raise VersionError(f"the peer speaks version {version} of the protocol, this is version {VERSION}")
    kind = _LETTERS.get(chr(letter))
    if kind is None:
        raise MessageError(f"unknown message {chr(letter)!r}")
    if kind is Batch:
        return _batch(frame)
    max_bytes, max_items = LARGER_FIELDS.get(kind, MAX_FIELDS)
    if len(frame) - HEAD_BYTES > max_bytes:
        raise MessageError(f"expected a {kind.__name__} of at most {max_bytes} bytes")
    values = _unpack(memoryview(frame)[HEAD_BYTES:], kind.__name__, max_items)
    checks = _CHECKS[kind]
    if type(values) is not list or len(values) != len(checks):
        raise MessageError(f"expected a {kind.__name__} of {len(checks)} fields")
    found = []
    for value, (name, check) in zip(values, checks, strict=True):
        try:
            found.append(check(value))
        except _Mismatch:
            raise MessageError(f"{kind.__name__}.{name} cannot be {value!r:.80}") from None
    message: Message = kind(*found)
    if isinstance(message, messages.Hello) and not (
        len(message.stream) == STREAM_ID_BYTES and message.first <= message.head
    ):
        raise MessageError("a Hello of no stream, or of one that begins after its end")
    return message


def pack_plain(value: Mapping[str, Any]) -> bytes:
    """A map of primitives as the bytes that a message carries unopened."""
    packed: bytes = msgpack.packb(value, default=_as_map, unicode_errors="surrogatepass")
    return packed


def unpack_plain(data: bytes) -> dict[str, Any]:
    """Read what `pack_plain` made.

    Raises:
        MessageError: it is no map, or is nested too deeply.
    """
    values = _unpack(data, "map", LARGER_FIELDS[messages.Applied][1])
    try:
        found: dict[str, Any] = _expect(_plain(values), type(values) is dict)
    except _Mismatch:
        raise MessageError("expected a map of primitives") from None
    return found


def _batch(frame: bytes) -> Batch:
    if len(frame) < HEAD_BYTES + HEADER_BYTES:
        raise MessageError("expected a batch of a header and a payload")
    view = memoryview(frame)
    header = Header.unpack(view[HEAD_BYTES:])
    if header.kind is not Kind.BATCH:
        raise MessageError(f"expected a batch, found a {header.kind.name} frame, which only a collector writes")
    payload = bytes(view[HEAD_BYTES + HEADER_BYTES :])
    check_payload(header, payload)
    return Batch(header, payload)


def _unpack(data: bytes | memoryview, what: str, max_items: int) -> Any:
    limit = min(max_items, len(data))
    try:
        return msgpack.unpackb(
            data,
            strict_map_key=False,
            unicode_errors="surrogatepass",
            max_array_len=limit,
            max_map_len=limit,
            max_ext_len=0,
        )
    except (msgpack.UnpackException, ValueError, TypeError, RecursionError) as error:
        raise MessageError(f"a {what} that is no msgpack: {error or type(error).__name__}") from None


class _Mismatch(Exception):
    """A field's value is not what the message declares."""


def _as_map(value: Any) -> Any:
    if isinstance(value, Origin | End):
        return value.as_map()
    if isinstance(value, Sequence):
        return list(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a message cannot carry {type(value).__name__}")


def _check(hint: Any) -> Callable[[Any], Any]:
    """What checks a value against the type *hint* of a message's field, and returns the value to use."""
    if hint is Any:
        return _plain
    if hint in (Origin, End):
        read: Callable[[Any], Any] = hint.from_map
        return read
    if hint is float:
        return lambda value: float(_expect(value, type(value) in (int, float) and math.isfinite(value)))
    if hint is int:
        return lambda value: _expect(value, type(value) is int and -(2**63) <= value < 2**63)
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return lambda value: _expect(value, type(value) is int and value in args[1])
    if origin in (Union, types.UnionType):
        inner = _check(next(arg for arg in args if arg is not type(None)))
        return lambda value: None if value is None else inner(value)
    if origin is tuple:
        return _fields(tuple, [_check(arg) for arg in args])
    if isinstance(hint, type) and issubclass(hint, tuple):  # a NamedTuple
        named = get_type_hints(hint, include_extras=True)
        return _fields(lambda values: hint(*values), [_check(found) for found in named.values()])
    if origin is not None and issubclass(origin, Mapping):
        key, item = _check(args[0]), _check(args[1])
        return lambda value: {key(k): item(v) for k, v in _expect(value, type(value) is dict).items()}
    if origin is not None and issubclass(origin, Sequence):
        element = _check(args[0])
        return lambda value: [element(v) for v in _expect(value, type(value) is list)]
    return lambda value: _expect(value, type(value) is hint)


def _fields(make: Callable[[Iterable[Any]], Any], parts: Sequence[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    """What checks an array of as many values as there are *parts*, each by its own."""

    def check(value: Any) -> Any:
        _expect(value, type(value) is list and len(value) == len(parts))
        return make([part(v) for part, v in zip(parts, value, strict=True)])

    return check


def _plain(value: Any, depth: int = 0) -> Any:
    """*value*, if it is made of what every reader can show: no extension types, nothing nested without end."""
    kind = type(value)
    if kind is dict or kind is list:
        if depth == MAX_DEPTH:
            raise _Mismatch
        for item in value.values() if kind is dict else value:
            _plain(item, depth + 1)
        return value
    return _expect(value, value is None or kind in (bool, int, float, str, bytes))


def _expect(value: Any, holds: bool) -> Any:
    if not holds:
        raise _Mismatch
    return value


def _checks_of(kind: type[Any]) -> list[tuple[str, Callable[[Any], Any]]]:
    hints = get_type_hints(kind, include_extras=True)
    return [(item.name, _check(hints[item.name])) for item in fields(kind)]


_CHECKS: Final = {kind: _checks_of(kind) for kind in _LETTER_OF if kind is not Batch}
