"""Levels as people read and write them: the one table of names, numbers and letters.

    ======  ========  ======  ============
    number  name      letter  also read as
    ======  ========  ======  ============
    10      DEBUG     V       D
    20      INFO      I
    30      WARNING   W       WARN
    40      ERROR     E
    50      CRITICAL  C       FATAL
    ======  ========  ======  ============

The letters are those of torch's line format. 0 is NOTSET; any other number is a level too, shown as `Level 35`.
Levels that `logging` itself takes, for example in set_logs(), are converted by `logging`.
"""

from __future__ import annotations

import difflib
import logging
import re
from typing import Final

from tlogs_shared.errors import ConfigError

__all__ = ["LETTERS", "NAMES", "level_name", "parse_level", "setting_text"]

NAMES: Final = {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR", 50: "CRITICAL"}
LETTERS: Final = {10: "V", 20: "I", 30: "W", 40: "E", 50: "C"}

_NUMBERS: Final = {
    **{name: number for number, name in NAMES.items()},
    **{letter: number for number, letter in LETTERS.items()},
    **{"NOTSET": 0, "D": 10, "WARN": 30, "FATAL": 50},
}
_NUMBER: Final = re.compile(r"\d{1,9}", re.ASCII)


def level_name(number: int) -> str:
    """The name of a level; for one that is not in the table, the name that this process gave it by `addLevelName`.

    >>> level_name(30), level_name(35), level_name(0)
    ('WARNING', 'Level 35', 'NOTSET')
    """
    return NAMES.get(number) or str(logging.getLevelName(number))


def setting_text(value: int | bool) -> str:
    """A setting's value as an operator types it: a level, or on or off for an artifact.

    >>> setting_text(20), setting_text(True), setting_text(False)
    ('INFO', 'on', 'off')
    """
    if isinstance(value, bool):
        return "on" if value else "off"
    return level_name(value)


def parse_level(text: str | int) -> int:
    """The number of a level given by name or letter, in any case, or by number.

    >>> parse_level("warning"), parse_level("V"), parse_level("15"), parse_level(30)
    (30, 10, 15, 30)

    Raises:
        ConfigError: neither a known name or letter nor a number; the message suggests a name that is close.
    """
    if isinstance(text, int):
        return text
    number = _NUMBERS.get(text.upper())
    if number is not None:
        return number
    if _NUMBER.fullmatch(text):
        return int(text)
    close = difflib.get_close_matches(text.upper(), [name for name in _NUMBERS if len(name) > 1], n=1)
    meant = f" (did you mean {close[0]}?)" if close else ""
    raise ConfigError(f"unknown level {text!r}{meant}: expected {', '.join(NAMES.values())}, or a number")
