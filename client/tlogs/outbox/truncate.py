"""Cutting a record that is too large, or that msgpack refuses, to one that can be sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from tlogs_shared.storage.record import Fields, message_of

__all__ = ["as_text", "shorten"]

MAX_FIELD_CHARS: Final = 1024
"""The length to which a template, a name or a user's field is cut beside a message that is too large."""

MAX_TEXT_CHARS: Final = 12 * 1024
"""The length to which a traceback or a stack is cut then."""

MAX_FIELDS: Final = 16
"""How many of the user's fields stay then."""


def shorten(values: Sequence[Any], room: int, pack: Callable[[Any], bytes]) -> list[Any]:
    """The fields after the time stamp, made to fit into *room* bytes packed.

    `cut` in `extra` counts the characters that are missing of the message.
    """
    record = Fields(0, *values)
    # With these shares everything but the message fits, also when each character takes four bytes.
    field, text = min(MAX_FIELD_CHARS, room // 256), min(MAX_TEXT_CHARS, room // 32)
    whole = message_of(record)
    extra = _short_extra(record.extra or {}, field, text)
    names = [name[:field] for name in (record.logger, record.template, record.func, record.thread)]
    logger, template, func, thread = names

    def made(message: str) -> list[Any]:
        return [record.levelno, logger, template, None, message, record.path[-field:], record.line, func, thread, extra]

    # Five bytes for the length of the message; the count takes ten at most.
    keep = max(room - len(pack(made(""))) - len("cut") - 16, 0)
    message = whole.encode("utf-8", "surrogatepass")[:keep].decode("utf-8", "ignore")
    if len(message) < len(whole):
        extra["cut"] = len(whole) - len(message)
    return made(message)


def _short_extra(extra: Mapping[str, Any], field: int, text: int) -> dict[str, Any]:
    short: dict[str, Any] = {}
    for key, value in extra.items():
        if key == "fields":
            short[key] = {
                str(name)[:field]: item if item is None or isinstance(item, int | float) else str(item)[:field]
                for name, item in list(value.items())[:MAX_FIELDS]
            }
        elif key in ("exc", "stack"):
            short[key] = _middle_out(value, text)
        else:
            short[key] = value[:field] if isinstance(value, str) else value
    return short


def _middle_out(text: str, size: int) -> str:
    """A text without its middle: the place where an exception was raised, and its message, are at the end.

    >>> _middle_out("raised here, there and everywhere", 12)
    'rais\\n[21 left out]\\nerywhere'
    """
    if len(text) <= size:
        return text
    head = size // 3
    return f"{text[:head]}\n[{len(text) - size} left out]\n{text[head - size :]}"


def as_text(values: Sequence[Any]) -> list[Any]:
    """The fields after the time stamp with everything that could not be packed as its text."""
    levelno, logger, template, args, message, path, line, func, thread, extra = values
    if message is None and args is not None:
        message = message_of(Fields(0, *values))
    return [
        levelno if isinstance(levelno, int) and 0 <= levelno < 1 << 31 else 0,
        str(logger),
        str(template),
        None,
        None if message is None else str(message),
        str(path),
        line if isinstance(line, int) and 0 <= line < 1 << 31 else 0,
        str(func),
        str(thread),
        None if extra is None else {"fields": {"extra": repr(extra)}},
    ]
