"""Records as JSON, one line each: the keys and values of `Record.asdict`, in their order.

Most of a line is the same in every record of a stream, or of a logging call: those two pieces are encoded once. All
output is ASCII, so that no control character that was logged reaches a terminal, and a lone surrogate is written.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import timezone
from json.encoder import encode_basestring_ascii
from math import isfinite, isnan
from typing import Any, Final

from tlogs.reading.entry import Entry, Speaker
from tlogs.reading.fold import Group
from tlogs.reading.record import keys_of_call, keys_of_speaker, present, record_of
from tlogs.reading.stamp import Stamp
from tlogs_shared.rankset import RankSet
from tlogs_shared.storage.record import Fields, message_of

__all__ = ["JsonRenderer"]

_CALLS_KEPT: Final = 4096
"""Templates that a program makes up as it goes must not fill the reader's memory."""


class JsonRenderer:
    """Entries to JSON lines."""

    def __init__(self) -> None:
        self._stamp = Stamp(timezone.utc, "%Y-%m-%dT%H:%M:%S")
        self._speakers: dict[Speaker, str] = {}
        self._calls: dict[tuple[object, ...], str] = {}

    def entries(self, entries: Iterable[Entry]) -> str:
        """A line for each of *entries*."""
        out: list[str] = []
        speakers, calls, stamp, text = self._speakers, self._calls, self._stamp, encode_basestring_ascii
        for entry in entries:
            corrected, _, number, speaker, record = entry
            ts, levelno, logger, template, args, message, path, line, func, thread, extra = record
            if extra is not None:
                out.append(_dumps(record_of(entry).asdict()) + "\n")
                continue
            who = speakers.get(speaker) or self._speaker(speaker)
            call = calls.get((levelno, logger, template, path, line, func)) or self._call(record)
            second, fraction = divmod(corrected, 1_000_000_000)
            if message is None:
                message = template if args is None else message_of(record)
            arguments = "" if args is None else f'"args": {_arguments(args)}, '
            out.append(
                f'{{"time": "{stamp(second)}.{fraction:09d}Z", "ts": {ts}, {who}, "thread": {text(thread)}, '
                f'"seq": {number}, {call}, {arguments}"message": {text(message)}, "stream": "log"}}\n'
            )
        return "".join(out)

    def groups(self, groups: Iterable[Group]) -> str:
        """A line for each group: its first record, and the key `ranks` with the rank set of all who logged it."""
        return "".join(
            _dumps({**record_of(group.first).asdict(), "ranks": str(RankSet.of(group.ranks))}) + "\n"
            for group in groups
        )

    def _speaker(self, speaker: Speaker) -> str:
        piece = self._speakers[speaker] = _dumps(present(keys_of_speaker(speaker)))[1:-1]
        return piece

    def _call(self, record: Fields) -> str:
        piece = _dumps(present(keys_of_call(record)))[1:-1]
        if len(self._calls) < _CALLS_KEPT:
            _, levelno, logger, template, _, _, path, line, func, _, _ = record
            self._calls[levelno, logger, template, path, line, func] = piece
        return piece


_encode: Final = json.JSONEncoder(allow_nan=False, check_circular=False, default=repr).encode


def _dumps(value: object) -> str:
    """JSON for whatever a record can hold."""
    try:
        return _encode(value)
    except (ValueError, TypeError, RecursionError):
        return _encode(_plain(value))


def _arguments(args: Sequence[Any] | Mapping[str, Any]) -> str:
    """JSON for the arguments of a message, which are nearly always a few numbers and texts."""
    if type(args) is not list:
        return _dumps(args)
    out = []
    for value in args:
        kind = type(value)
        if kind is str:
            out.append(encode_basestring_ascii(value))
        elif kind is int or (kind is float and isfinite(value)):
            out.append(repr(value))
        else:
            return _dumps(args)
    return f"[{', '.join(out)}]"


_DEEPEST: Final = 32


def _plain(value: object, depth: int = 0) -> object:
    """The value with words for what JSON cannot express: NaN and infinity, odd keys, deep nesting."""
    if isinstance(value, float) and not isfinite(value):
        return "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if not isinstance(value, (dict, list, tuple)):
        return value
    if depth == _DEEPEST:
        return "..."
    if isinstance(value, dict):
        return {key if isinstance(key, str) else repr(key): _plain(item, depth + 1) for key, item in value.items()}
    return [_plain(item, depth + 1) for item in value]
