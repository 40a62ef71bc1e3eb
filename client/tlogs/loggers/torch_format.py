"""torch's own line format, and the handlers that torch would attach, for processes without torch.

torch attaches a handler of its own to each registered logger. Where torch is absent one handler serves all of them:
the same lines, and one open file under TORCH_LOGS_OUT instead of one for each logger.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final

from tlogs.levels.registry import Registry
from tlogs_shared.errors import ConfigError
from tlogs_shared.level_names import LETTERS, NAMES

__all__ = ["TorchFormatter", "find_formatter", "open_file"]

_LETTERS: Final = {name: LETTERS[number] for number, name in NAMES.items()}


class TorchFormatter(logging.Formatter):
    """A formatter that writes what torch's `TorchLogsFormatter` writes.

    `I1121 19:15:30.949000 27265 train.py:481] [__guards] text`, with this prefix before each line of a record. Rank
    and trace id are torch's to know; without torch there are none.
    """

    def __init__(self, registry: Registry) -> None:
        super().__init__()
        self._registry = registry

    def format(self, record: logging.LogRecord) -> str:
        name = self._registry.artifact_loggers.get(record.name)
        artifact = self._registry.artifacts.get(name) if name is not None else None
        if artifact is not None and artifact.log_format is not None:
            return logging.Formatter(artifact.log_format).format(record)
        text = record.getMessage()
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            text = f"{text.removesuffix(_NEWLINE)}\n{record.exc_text}"
        if record.stack_info:
            text = f"{text.removesuffix(_NEWLINE)}\n{self.formatStack(record.stack_info)}"
        mark = f" [__{artifact.name}]" if artifact is not None else ""
        prefix = (
            f"{_LETTERS.get(record.levelname, record.levelname)}{self.formatTime(record, '%m%d %H:%M:%S')}"
            f".{int(record.msecs * 1000):06d} {record.process} {_relative(record.pathname, tuple(sys.path))}"
            f":{record.lineno}]{mark}"
        )
        return "\n".join(f"{prefix} {line}" for line in text.split("\n"))


_NEWLINE = "\n"


@lru_cache(maxsize=4096)
def _relative(path: str, roots: tuple[str, ...]) -> str:
    """*path* below the first of *roots* that holds it, as torch shows it; resolving is slow, so it is kept."""
    absolute = Path(path).resolve()
    for root in roots:
        if absolute.is_relative_to(root):
            return str(absolute.relative_to(root))
    return str(absolute)


def find_formatter(environ: Mapping[str, str], registry: Registry) -> logging.Formatter:
    """The formatter that TORCH_LOGS_FORMAT asks for, torch's own where it is not set.

    Raises:
        ConfigError: it is not a format; a ValueError, as torch raises it.
    """
    text = environ.get("TORCH_LOGS_FORMAT")
    if text is None:
        return TorchFormatter(registry)
    try:
        return logging.Formatter(logging.BASIC_FORMAT if text in ("short", "basic") else text)
    except ValueError as error:
        raise ConfigError(f"TORCH_LOGS_FORMAT={text!r}: {error}; expected a format such as %(message)s") from None


def open_file(out: str) -> logging.FileHandler:
    """The handler for the file that TORCH_LOGS_OUT names; it is appended to.

    Raises:
        OSError: the file cannot be opened, in the class that torch raises.
    """
    try:
        return logging.FileHandler(out)
    except OSError as error:
        raise type(error)(error.errno, f"TORCH_LOGS_OUT: {error.strerror}; its directory must exist", out) from None
