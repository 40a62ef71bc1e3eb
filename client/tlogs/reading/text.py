"""Records as text, one line or more each.

The line is torch's own, with true microseconds and the rank from the first record on::

    [rank0]:I1121 19:15:30.949123 27265 torch/distributed/distributed_c10d.py:481] [0/0] [__guards] message

Every physical line of a record (of its message, its exception, its stack) carries the prefix. Where a record has no
place in a file (captured output, tlogs' own records), the name of its source takes that place.

What a program logs must not steer the reader's terminal: with `escape`, control characters are shown (`\\x1b`), not
sent. Output into a file or a pipe has them as they were logged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import tzinfo
from typing import Final

from tlogs.reading.entry import Entry, Speaker, names_of, trouble_of
from tlogs.reading.fold import Group
from tlogs.reading.stamp import Stamp
from tlogs_shared.level_names import LETTERS
from tlogs_shared.storage.record import Fields, message_of, record_level

__all__ = ["TextRenderer"]

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


class TextRenderer:
    """Entries to text. *zone* is the reader's own where it is None; *colour* and *escape* are for a terminal."""

    def __init__(self, zone: tzinfo | None = None, *, colour: bool = False, escape: bool = False) -> None:
        self._stamp = Stamp(zone, "%m%d %H:%M:%S")
        self._colour = colour
        self._escape = escape
        self._heads: dict[Speaker, tuple[str, str]] = {}

    def entries(self, entries: Iterable[Entry]) -> str:
        """The lines of *entries*, each with its line feed."""
        # Some hundred thousand records a second pass here, nearly all of them by the first branch.
        out: list[str] = []
        heads, letters, plain = self._heads, LETTERS, not self._colour
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
        """The lines of folded records, each with the label of all ranks that logged it."""
        out = []
        for group in groups:
            corrected, _, _, speaker, record = group.first
            out.append(self._whole(group.label, speaker, record, message_of(record), corrected))
        return "".join(out)

    def _head(self, speaker: Speaker) -> tuple[str, str]:
        head = self._heads[speaker] = f"[{_in_line(speaker.label)}]:", str(speaker.info.origin.pid)
        return head

    def _whole(self, label: str, speaker: Speaker, record: Fields, message: str, corrected: int) -> str:
        """The lines of any record, however unusual."""
        extra = record.extra or {}
        source = extra.get("stream", "log")
        level = LETTERS.get(record.levelno) or record_level(record.levelno, record.extra)
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
