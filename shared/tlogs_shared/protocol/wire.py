"""Messages as frames of bytes, and back.

A message is one frame: the protocol's version (one byte), the message's letter (one byte), and the fields as a msgpack
array; a `Batch` has its header and its payload there instead. Never two frames: a peer that stops between them ends the
other process (an assertion of libzmq 4.3.5). Sizes are checked before anything is unpacked; msgspec checks the fields
against what `messages` declares while it unpacks them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgpack
import msgspec

from tlogs_shared.errors import MessageError
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
"""Bytes of a message's fields: an honest hello has a twentieth of it. The elements in one array or map are bounded for
msgpack alone, which makes room for as many as an array says it has, a thousand arrays deep.
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
    head = bytes([VERSION, ord(_LETTER_OF[type(message)])])
    if isinstance(message, Batch):
        return b"".join((head, message.header.pack(), message.payload))
    return head + _pack(message)


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
    message: Message = _unpack(memoryview(frame)[HEAD_BYTES:], kind, max_items)
    return message


def pack_plain(value: Mapping[str, Any]) -> bytes:
    """A map of primitives as the bytes that a message carries unopened."""
    return _pack(value)


def unpack_plain(data: bytes) -> dict[str, Any]:
    """Read what `pack_plain` made.

    Raises:
        MessageError: it is not a map, or is nested too deeply.
    """
    found: dict[str, Any] = _unpack(data, dict, LARGER_FIELDS[messages.Applied][1])
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


def _pack(value: Any) -> bytes:
    try:
        return _ENCODER.encode(value)
    except UnicodeEncodeError:
        # os.fsdecode makes lone surrogates of a path that is not UTF-8: msgspec refuses them, msgpack carries them.
        plain = msgspec.to_builtins(value, builtin_types=(bytes,), enc_hook=_as_map)
        packed: bytes = msgpack.packb(plain, unicode_errors="surrogatepass")
        return packed


def _unpack(data: bytes | memoryview, kind: type[Any], max_items: int) -> Any:
    try:
        try:
            return _DECODERS[kind].decode(data)
        except UnicodeDecodeError:
            limit = min(max_items, len(data))
            plain = msgpack.unpackb(
                data,
                strict_map_key=False,
                unicode_errors="surrogatepass",
                max_array_len=limit,
                max_map_len=limit,
                max_ext_len=0,
            )
            return msgspec.convert(plain, kind)
    except (msgspec.MsgspecError, msgpack.UnpackException, ValueError, TypeError, RecursionError) as error:
        why = _PLACE.sub(lambda found: _field(kind, int(found[1])), str(error) or type(error).__name__)
        raise MessageError(f"a {kind.__name__} that cannot be read: {why}") from None


def _field(kind: type[Any], number: int) -> str:
    names = getattr(kind, "__struct_fields__", ())
    return f"{kind.__name__}.{names[number]}" if number < len(names) else f"field {number}"


def _as_map(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a message cannot carry {type(value).__name__}")


def _no_extension(code: int, data: memoryview) -> Any:
    raise ValueError(f"extension type {code}")


_PLACE: Final = re.compile(r"\$\[(\d+)\]")
"""Where in the array msgspec found something wrong."""

_ENCODER: Final = msgspec.msgpack.Encoder(enc_hook=_as_map)
_KINDS: Final[list[type[Any]]] = [kind for kind in _LETTERS.values() if kind is not Batch]
_DECODERS: Final = {kind: msgspec.msgpack.Decoder(kind, ext_hook=_no_extension) for kind in [*_KINDS, dict]}
