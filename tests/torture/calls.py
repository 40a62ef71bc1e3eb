"""What the workers of the torture log: everything about a call follows from its worker, its thread and its number.

So the oracle needs no copy of what was logged to know what should be in the store.
"""

from __future__ import annotations

import logging
from typing import Final

__all__ = ["LOGGER", "level_of", "log", "message_of", "parse"]

LOGGER: Final = "torture"

_LEVELS: Final = (*[logging.DEBUG] * 6, *[logging.INFO] * 3, logging.WARNING)
_WORDS: Final = ("loss", "gradient", "bucket all-reduced", "naïve – ünïcode", "a line\nand another", "x" * 80, "100 %")
_LONG: Final = "long " * 4000


def level_of(number: int) -> int:
    """The level of a call."""
    return logging.ERROR if number % 100 == 99 else _LEVELS[number % 10]


def _rest(number: int) -> str:
    return _LONG if number % 1000 == 500 else _WORDS[number % 7]


def message_of(worker: int, thread: int, number: int) -> str:
    """The message that a call leaves behind."""
    return f"{worker} {thread} {number} {_rest(number)}"


def parse(message: str) -> tuple[int, int, int]:
    """Worker, thread and number.

    Raises:
        ValueError: no call of ours leaves such a message.
    """
    worker, thread, number, _ = message.split(" ", 3)
    return int(worker), int(thread), int(number)


class _Lazy:
    """Something whose text is only made when it is asked for, as a tensor's is."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return self._text


def log(logger: logging.Logger, worker: int, thread: int, number: int) -> None:
    """Make the call: with primitives for the most part, else with a text, an object, or fields."""
    level, kind = level_of(number), number % 50
    if kind == 7:
        logger.log(level, message_of(worker, thread, number))
    elif kind == 23:
        logger.log(level, "%d %s", worker, _Lazy(f"{thread} {number} {_rest(number)}"))
    elif kind == 41:
        logger.log(level, "%d %d %d %s", worker, thread, number, _rest(number), extra={"step": number})
    else:
        logger.log(level, "%d %d %d %s", worker, thread, number, _rest(number))
