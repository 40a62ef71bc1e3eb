"""The command that this process was started with, as it may be shown: secrets masked, and bounded."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Final

__all__ = ["command_line"]

MAX_CHARS: Final = 500
MASK: Final = "***"

_SECRET: Final = re.compile(r"token|secret|password|key", re.IGNORECASE)
_ASSIGNMENT: Final = re.compile(r"([-\w.+]+)=(.*)", re.DOTALL)
_USER: Final = re.compile(r"(\w[\w+.-]*://)[^/@\s]+@")
_WITH_VALUE: Final = ("-W", "-X")
"""Options of the interpreter's with a value of their own."""


def command_line(arguments: Sequence[str]) -> str:
    """The script and its arguments, from `sys.orig_argv`.

    >>> command_line(["python", "-u", "-X", "dev", "train.py", "--lr=0.1", "--hub-token", "abc", "--key=d", "a b"])
    "train.py --lr=0.1 --hub-token '***' '--key=***' 'a b'"
    >>> command_line(["python", "-m", "train", "https://me:pw@host/x", "+wandb.api_key=abc"])
    "-m train 'https://***@host/x' '+wandb.api_key=***'"
    >>> command_line(["python", "-c", "login('abc')", "x"])
    '-c x'
    """
    rest = list(arguments[1:])
    while rest and rest[0].startswith("-") and rest[0] not in ("-c", "-m"):
        del rest[: 2 if rest[0] in _WITH_VALUE else 1]
    if rest[:1] == ["-c"]:
        del rest[1:2]  # a program, and whatever it holds
    found = []
    is_secret = False
    for argument in rest:
        if is_secret and not argument.startswith("-"):
            shown = MASK
        elif (pair := _ASSIGNMENT.fullmatch(argument)) is not None and _SECRET.search(pair[1]):
            shown = f"{pair[1]}={MASK}"
        else:
            shown = _USER.sub(rf"\1{MASK}@", argument)
        is_secret = argument.startswith("-") and "=" not in argument and _SECRET.search(argument) is not None
        found.append(shown)
    text = shlex.join(found)
    return text if len(text) <= MAX_CHARS else f"{text[: MAX_CHARS - 1]}…"
