"""Records as text, one line or more each, and as JSON, one line each.

The text line is torch's own, with true microseconds and the rank from the first record on::

    [rank0]:I1121 19:15:30.949123 27265 torch/distributed/distributed_c10d.py:481] [0/0] [__guards] message

Every physical line of a record (of its message, its exception, its stack) carries the prefix. Where a record has no
place in a file (captured output, tlogs' own records), the name of its source stands there.

What a program logs must not steer the reader's terminal: with `escape`, control characters are shown (`\\x1b`), not
sent. Output into a file or a pipe has them as they were logged; JSON never has them raw.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone, tzinfo
from json.encoder import encode_basestring_ascii
from math import isfinite, isnan
from typing import Any, Final, TypeAlias

from tlogs.reading.entry import Entry, Speaker, names_of, record_of, trouble_of
from tlogs.reading.fold import Group
from tlogs_shared.rankset import RankSet
from tlogs_shared.storage.record import Fields, level_name, message_of

__all__ = ["JsonRenderer", "TextRenderer"]

_LETTERS: Final = {10: "V", 20: "I", 30: "W", 40: "E", 50: "C"}

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""C0 and C1 without tab and line feed, and what turns the direction of writing around."""

_RESET: Final = "\x1b[0m"
_DIM: Final = "\x1b[2m"
_LEVEL_COLOURS: Final = ((50, "\x1b[1;31m"), (40, "\x1b[31m"), (30, "\x1b[33m"), (20, ""), (0, _DIM))
_OWN_COLOUR: Final = "\x1b[36m"
_RANK_COLOURS: Final = (36, 32, 35, 34, 96, 92, 95, 94)
"""Cyan, green, magenta, blue and their bright sisters: no yellow and no red, which are levels."""


def _shown(match: re.Match[str]) -> str:
    number = ord(match[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def _visible(text: str) -> str:
    return text if text.isprintable() else _CONTROL.sub(_shown, text)


def _in_line(text: str) -> str:
    # A line feed in a path or a host's name would look like the beginning of a record.
    return _visible(text).replace("\n", "\\n")


class _Clock:
    """Seconds since the epoch as text, made once for each second."""

    def __init__(self, zone: tzinfo | None, form: str) -> None:
        self._zone = zone
        self._form = form
        self._second: int | None = None
        self._text = ""

    def __call__(self, second: int) -> str:
        if second != self._second:
            moment = (_EPOCH + timedelta(seconds=second)).astimezone(self._zone)
            self._second, self._text = second, moment.strftime(self._form)
        return self._text


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)


class TextRenderer:
    """Entries to text. *zone* is the reader's own where it is None; *colour* and *escape* are for a terminal."""

    def __init__(self, zone: tzinfo | None = None, *, colour: bool = False, escape: bool = False) -> None:
        self._stamp = _Clock(zone, "%m%d %H:%M:%S")
        self._colour = colour
        self._escape = escape
        self._heads: dict[Speaker, tuple[str, str]] = {}

    def entries(self, entries: Iterable[Entry]) -> str:
        """The lines of *entries*, each with its line feed."""
        # Some hundred thousand records a second pass here, nearly all of them by the first branch.
        out: list[str] = []
        heads, letters, plain = self._heads, _LETTERS, not self._colour
        shown, stamp = -1, ""
        for corrected, _, _, speaker, record in entries:
            _, levelno, _, template, args, message, path, line, _, _, extra = record
            if message is None:
                message = template if args is None else message_of(record)
            second, fraction = divmod(corrected, 1_000_000_000)
            if extra is None and plain and path and levelno in letters:
                text = f"{path}:{line}] {message}"
                if text.isprintable():
                    if second != shown:
                        shown, stamp = second, self._stamp(second)
                    prefix, pid = heads.get(speaker) or self._head(speaker)
                    out.append(f"{prefix}{letters[levelno]}{stamp}.{fraction // 1000:06d} {pid} {text}\n")
                    continue
            out.append(self._whole(speaker.label, speaker, record, message, corrected))
        return "".join(out)

    def groups(self, groups: Iterable[Group]) -> str:
        """The lines of folded records, under the label of all who said them."""
        return "".join(
            self._whole(group.label, group.first[3], group.first[4], message_of(group.first[4]), group.first[0])
            for group in groups
        )

    def _head(self, speaker: Speaker) -> tuple[str, str]:
        head = self._heads[speaker] = f"[{_in_line(speaker.label)}]:", str(speaker.info.origin.pid)
        return head

    def _whole(self, label: str, speaker: Speaker, record: Fields, message: str, corrected: int) -> str:
        """The lines of any record, however unusual."""
        extra = record.extra or {}
        source = extra.get("stream", "log")
        level = _LETTERS.get(record.levelno) or level_name(record.levelno, record.extra)
        place = f"{record.path}:{record.line}" if record.path and source == "log" else source
        marks = f" [{extra['trace_id']}]" if extra.get("trace_id") else ""
        artifact = names_of(record.logger, record.extra)[1]
        if artifact is not None:
            marks += f" [__{artifact}]"
        who = f"[{_in_line(label)}]:"
        second, fraction = divmod(corrected, 1_000_000_000)
        time = f"{self._stamp(second)}.{fraction // 1000:06d}"
        where = _in_line(f"{level}{time} {speaker.info.origin.pid} {place}]{marks}")
        text = "\n".join([message, *trouble_of(extra)])
        if "\r" in text:
            text = text.replace("\r\n", "\n")
        if self._escape:
            text = _visible(text)
        before, after = f"{who}{where} ", "\n"
        if self._colour:
            paint = _OWN_COLOUR if source == "tlogs" else _colour_of(record.levelno)
            before = (
                f"\x1b[{_RANK_COLOURS[speaker.rank % len(_RANK_COLOURS)]}m{who}{_RESET}{_DIM}{where}{_RESET} {paint}"
            )
            after = f"{_RESET}\n" if paint else "\n"
        return "".join([f"{before}{line}{after}" for line in text.split("\n")])


def _colour_of(levelno: int) -> str:
    return next((colour for least, colour in _LEVEL_COLOURS if levelno >= least), _DIM)


_Site: TypeAlias = tuple[int, str, str, str, int, str]
"""Where a logging call stands: level, logger, template, path, line, function."""


class JsonRenderer:
    """Entries to JSON lines: the keys and values of `Record.asdict`, several times faster."""

    def __init__(self) -> None:
        self._stamp = _Clock(timezone.utc, "%Y-%m-%dT%H:%M:%S")
        self._heads: dict[Speaker, tuple[str, str, str]] = {}
        self._sites: dict[_Site, tuple[str, str]] = {}

    def entries(self, entries: Iterable[Entry]) -> str:
        """A line for each of *entries*."""
        out: list[str] = []
        heads, sites, stamp, text = self._heads, self._sites, self._stamp, encode_basestring_ascii
        for entry in entries:
            corrected, _, number, speaker, record = entry
            ts, levelno, logger, template, args, message, path, line, func, thread, extra = record
            if extra is not None or levelno not in _LETTERS:
                out.append(_dumps(record_of(entry).asdict()) + "\n")
                continue
            site = (levelno, logger, template, path, line, func)
            before_args, after_message = sites.get(site) or self._site(site)
            second, fraction = divmod(corrected, 1_000_000_000)
            before_thread, after_thread, end = heads.get(speaker) or self._head(speaker)
            if message is None:
                message = template if args is None else message_of(record)
            arguments = "" if args is None else f'"args": {_arguments(args)}, '
            out.append(
                f'{{"time": "{stamp(second)}.{fraction:09d}Z", "ts": {ts}, {before_thread}{text(thread)}{after_thread}'
                f'"seq": {number}, {before_args}{arguments}"message": {text(message)}, {after_message}{end}'
            )
        return "".join(out)

    def groups(self, groups: Iterable[Group]) -> str:
        """A line for each group: its first record, and the key `ranks` with the rank set of all who said it."""
        return "".join(
            _dumps({**record_of(group.first).asdict(), "ranks": str(RankSet.of(group.ranks))}) + "\n"
            for group in groups
        )

    def _head(self, speaker: Speaker) -> tuple[str, str, str]:
        """What is the same in every line of a speaker: before the thread, after it, and at the end."""
        blank = Fields(0, 0, "", "", None, "", "", 0, "", "", None)
        found = list(record_of((0, speaker.rank, 0, speaker, blank)).asdict().items())
        names = [name for name, _ in found]
        thread, seq, func = names.index("thread"), names.index("seq"), names.index("func")
        head = self._heads[speaker] = (
            _dumps(dict(found[names.index("ts") + 1 : thread]))[1:-1] + ', "thread": ',
            "".join(f", {_dumps(dict([pair]))[1:-1]}" for pair in found[thread + 1 : seq]) + ", ",
            "".join(f", {_dumps(dict([pair]))[1:-1]}" for pair in found[func + 1 :]) + "}\n",
        )
        return head

    def _site(self, site: _Site) -> tuple[str, str]:
        """What is the same in every line of a logging call: before the arguments, and after the message."""
        levelno, logger, template, path, line, func = site
        component, artifact = names_of(logger, None)
        before = {"level": level_name(levelno), "levelno": levelno, "logger": logger}
        before |= {} if component is None else {"component": component}
        before |= {} if artifact is None else {"artifact": artifact}
        before["template"] = template
        found = _dumps(before)[1:-1] + ", ", _dumps({"path": path, "line": line, "func": func})[1:-1]
        if len(self._sites) < _SITES_KEPT:
            self._sites[site] = found
        return found


_SITES_KEPT: Final = 4096
"""Templates that a program makes up as it goes must not fill the reader's memory."""

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
    """The value with what JSON cannot say in words: numbers that are none, odd keys, the depths of a nest."""
    if isinstance(value, float) and not isfinite(value):
        return "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if not isinstance(value, (dict, list, tuple)):
        return value
    if depth == _DEEPEST:
        return "..."
    if isinstance(value, dict):
        return {key if isinstance(key, str) else repr(key): _plain(item, depth + 1) for key, item in value.items()}
    return [_plain(item, depth + 1) for item in value]
