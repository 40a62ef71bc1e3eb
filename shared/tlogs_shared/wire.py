"""Messages as frames of bytes, and back.

The first frame is the protocol's version (one byte) and the message's letter; the second the fields as a msgpack
array; a `Batch` has its header and its payload as second and third frame instead. Sizes are checked before anything
is unpacked, types after.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

import msgpack

from tlogs_shared import messages
from tlogs_shared.batch import HEADER_BYTES, MAX_PAYLOAD_BYTES, Header, check_payload
from tlogs_shared.errors import MessageError
from tlogs_shared.messages import Batch, Message
from tlogs_shared.origin import Origin

__all__ = ["MAX_FRAME_BYTES", "VERSION", "VersionError", "decode", "encode"]

VERSION: Final = 1
"""Raised whenever a message changes its meaning; a collector says so to a peer of another version."""

MAX_FRAME_BYTES: Final = max(MAX_PAYLOAD_BYTES, 8 * 1024 * 1024)
"""No frame is larger; the socket itself refuses one that is."""

MAX_FIELDS_BYTES: Final = 8 * 1024 * 1024
"""Reports about thousands of ranks and pages of a segment are the largest messages beside batches."""

MAX_NESTING_ITEMS: Final = 200_000
"""More elements in one array or map than any report about 10,000 ranks has."""

_LETTERS: Final[dict[str, type[Any]]] = {
    "H": messages.Hello,
    "P": messages.Proof,
    "B": messages.Batch,
    "h": messages.Heartbeat,
    "p": messages.Applied,
    "X": messages.Bye,
    "C": messages.Challenge,
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


def encode(message: Message) -> list[bytes]:
    """The frames of *message*."""
    kind = type(message)
    head = bytes([VERSION, ord(_LETTER_OF[kind])])
    if isinstance(message, Batch):
        return [head, message.header.pack(), message.payload]
    values = [getattr(message, name) for name, _ in _CHECKS[kind]]
    return [head, msgpack.packb(values, default=_as_map, unicode_errors="surrogatepass")]


def decode(frames: Sequence[bytes]) -> Message:
    """The message in *frames*.

    Raises:
        VersionError: the peer speaks another version.
        MessageError: no message, or one beyond the limits.
    """
    if not frames or len(frames[0]) != 2:
        raise MessageError("expected a message, whose first frame has two bytes")
    version, letter = frames[0]
    if version != VERSION:
        raise VersionError(f"the peer speaks version {version} of the protocol, this is version {VERSION}")
    kind = _LETTERS.get(chr(letter))
    if kind is None:
        raise MessageError(f"unknown message {chr(letter)!r}")
    if kind is Batch:
        if len(frames) != 3 or len(frames[1]) != HEADER_BYTES:
            raise MessageError("expected a batch of a header and a payload")
        header = Header.unpack(frames[1])
        check_payload(header, frames[2])
        return Batch(header, frames[2])
    if len(frames) != 2 or len(frames[1]) > MAX_FIELDS_BYTES:
        raise MessageError(f"expected a {kind.__name__} of one frame of at most {MAX_FIELDS_BYTES} bytes")
    try:
        values = msgpack.unpackb(
            frames[1],
            strict_map_key=False,
            unicode_errors="surrogatepass",
            max_array_len=MAX_NESTING_ITEMS,
            max_map_len=MAX_NESTING_ITEMS,
        )
    except (msgpack.UnpackException, ValueError, TypeError, RecursionError) as error:
        raise MessageError(f"a {kind.__name__} that is no msgpack: {error or type(error).__name__}") from None
    checks = _CHECKS[kind]
    if type(values) is not list or len(values) != len(checks):
        raise MessageError(f"expected a {kind.__name__} of {len(checks)} fields")
    found = []
    for value, (name, check) in zip(values, checks, strict=True):
        try:
            found.append(check(value))
        except _Mismatch:
            raise MessageError(f"{kind.__name__}.{name} has the wrong type: {value!r:.80}") from None
    message: Message = kind(*found)
    return message


class _Mismatch(Exception):
    """A field's value is not of the type that the message declares."""


def _as_map(value: Any) -> Any:
    if isinstance(value, Origin):
        return value.as_map()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a message cannot carry {type(value).__name__}")


def _check(hint: Any) -> Callable[[Any], Any]:
    """What checks a value against the type *hint* of a message's field, and returns the value to use."""
    if hint is Any:
        return lambda value: value
    if hint is Origin:
        return Origin.from_map
    if hint is float:
        return lambda value: float(_expect(value, type(value) in (int, float)))
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        inner = _check(next(arg for arg in args if arg is not type(None)))
        return lambda value: None if value is None else inner(value)
    if origin is not None and issubclass(origin, Mapping):
        key, item = _check(args[0]), _check(args[1])
        return lambda value: {key(k): item(v) for k, v in _expect(value, type(value) is dict).items()}
    if origin is not None and issubclass(origin, Sequence):
        element = _check(args[0])
        return lambda value: [element(v) for v in _expect(value, type(value) is list)]
    return lambda value: _expect(value, type(value) is hint)


def _expect(value: Any, holds: bool) -> Any:
    if not holds:
        raise _Mismatch
    return value


def _checks_of(kind: type[Any]) -> list[tuple[str, Callable[[Any], Any]]]:
    hints = get_type_hints(kind)
    return [(item.name, _check(hints[item.name])) for item in fields(kind)]


_CHECKS: Final = {kind: _checks_of(kind) for kind in _LETTER_OF if kind is not Batch}
