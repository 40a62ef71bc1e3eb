"""The intake: takes each log record once, where it passes, and hands it to the outbox.

`tlogs.worker.seam` calls it for each record that its logger lets through. Arguments that are numbers, texts, booleans
and None travel beside the template; everything else is settled here (see `tlogs.worker.arguments`), in the thread that
logs, because a tensor may have changed by the time somebody reads.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from tlogs.levels.registry import component_of
from tlogs.worker.arguments import PRIMITIVES, fields, formatted, is_emitted, message, shown, text
from tlogs.worker.seam import Seam
from tlogs_shared.level_names import NAMES
from tlogs_shared.storage.record import MAX_ARGS

__all__ = ["Append", "Intake"]

Append = Callable[..., bool]
"""Takes a record's ten fields after the time stamp, as `Outbox.append` does."""

NEVER: Final = ("tlogs", "zmq")
"""Loggers that are not taken, nor those below them: a record about the transport must not go into it."""

TRACE_LOGGER: Final = "torch.__trace"
"""torch's structured trace: its records are not messages, and it has its own files."""

MAX_DEPTH: Final = 4
"""A text that logs while it is made (a `__repr__` that logs its own object) is not followed deeper."""

STANDARD: Final = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__)
"""The attributes that every record has; more are the user's, who gave them as ``extra=``."""

FORMATTED: Final = STANDARD | {"message", "asctime", "taskName", "rankprefix", "traceid", "artifactprefix"}
"""With those that formatters leave behind, torch's too."""

Label = Callable[[str], "tuple[str | None, str | None]"]
"""Gives a logger's component and artifact."""


class _Source(NamedTuple):
    """Facts about a logger that follow from its name."""

    artifact: str | None
    own: dict[str, str]
    """Component and artifact where the program registered them itself, and no reader can know them by the name."""
    is_torchs: bool
    logger: logging.Logger | None
    """Looked at for each record of an artifact: torch turns those on and off."""


class Intake:
    """Takes the records of this process, and hands each to `append`.

    `append` may be replaced at any time (a forked child gets an outbox of its own). `trace_id` gives the trace id of
    what torch is compiling in this thread; it is asked for torch's own records only. `label` gives the component and
    the artifact of a logger by this process's registry; it is asked at a logger's first record. `stores` tells whether
    another process has an outbox of its own: its records, which come through a queue, are taken there. `refused`
    counts records that could not be taken because of an error in here.
    """

    def __init__(
        self,
        append: Append,
        trace_id: Callable[[], str | None] | None = None,
        label: Label = component_of,
        stores: Callable[[int], bool] = lambda pid: True,
    ) -> None:
        self.append = append
        self.trace_id = trace_id
        self.pid = 0
        self.refused = 0
        self.is_active = False
        self.paths: dict[str, str] = {}
        """Each path that was seen, as it is shown."""
        self._label = label
        self._stores = stores
        self._sources: dict[str, _Source | None] = {}
        self._depths: dict[int, int] = {}
        self._seam = Seam(self)

    def install(self) -> None:
        """Begin to take records."""
        self.is_active, self.pid = True, os.getpid()
        self._seam.install()

    def uninstall(self) -> None:
        """Take no more records; where somebody else has put a wrapper over ours, ours stays below it without effect."""
        self.is_active, self.pid = False, 0
        self._seam.uninstall()

    def forked(self) -> None:
        """In a forked child: records of the parent are those of another process now."""
        self.pid = os.getpid() if self.is_active else 0

    def is_plain(self, name: str) -> bool:
        """Return whether records of this logger are taken and need no label of their own."""
        source = self._sources.get(name)
        return source is not None and not (source.artifact or source.own or source.is_torchs)

    def take(self, record: logging.LogRecord, logger: logging.Logger | None = None) -> None:
        """Take one record that *logger* lets through. Raises nothing but what a signal handler raises in between."""
        try:
            self._take(record, logger)
        except Exception as error:  # noqa: BLE001 - a training job must not die of what is in a record
            self.refuse(record, error)

    def refuse(self, record: logging.LogRecord, error: Exception) -> None:
        """Count a record that could not be taken, and report it in its place."""
        self.refused += 1
        template, args = "a record of %s could not be taken: %s", (str(getattr(record, "name", "")), shown(error))
        try:
            self.append(logging.WARNING, "tlogs", template, args, None, "", 0, "", "", {"stream": "tlogs"})
        except Exception:  # noqa: BLE001 - as above; perhaps it is append itself that fails
            pass

    def _take(self, record: logging.LogRecord, logger: logging.Logger | None) -> None:
        name, path, process = str(record.name), str(record.pathname), record.process
        source = self._source(name)
        if source is None or (source.logger is not None and _is_silent(source.logger)):
            return
        if self.pid and type(process) is int and process != self.pid and self._stores(process):
            return
        extra = self._extra(record, source)
        emitted = source.is_torchs or is_emitted(logger, record.levelno)
        template, args, message = self._text(record, emitted)
        if type(record.msg) is dict:
            # c10d logs a failed collective so.
            extra["fields"] = {**fields(record.msg), **extra.get("fields", {})}
        # A record may have been made by hand, or come from another process, and lack what logging would have put in.
        self.append(
            int(record.levelno or 0),
            name,
            template,
            args,
            message,
            self.short_path(path),
            int(record.lineno or 0),
            str(record.funcName or ""),
            str(record.threadName or ""),
            extra or None,
        )

    def _source(self, name: str) -> _Source | None:
        """A logger's facts; None where its records are not taken."""
        try:
            return self._sources[name]
        except KeyError:
            pass
        source = None
        if name != TRACE_LOGGER and not any(name == never or name.startswith(f"{never}.") for never in NEVER):
            logger = logging.Logger.manager.loggerDict.get(name)
            artifact = getattr(logger, "artifact_name", None)
            known = logger if artifact is not None and isinstance(logger, logging.Logger) else None
            source = _Source(artifact, self._own_label(name), name.startswith("torch."), known)
        self._sources[name] = source
        return source

    def _own_label(self, name: str) -> dict[str, str]:
        found = self._label(name)
        if found == component_of(name):
            return {}
        return {key: value for key, value in zip(("component", "artifact"), found, strict=True) if value is not None}

    def short_path(self, path: str) -> str:
        """A path relative to the first entry of sys.path that holds it, as torch shows it."""
        try:
            return self.paths[path]
        except KeyError:
            pass
        try:
            short = absolute = os.path.realpath(path) if path else ""
        except (OSError, ValueError):  # a relative path whose directory has been removed, or no path at all
            short = absolute = path
        for root in sys.path:
            # Programs put other things than texts there, which Python itself passes over.
            if type(root) is str and root and absolute.startswith(root if root.endswith(os.sep) else root + os.sep):
                short = os.path.relpath(absolute, root)
                break
        self.paths[path] = short
        return short

    def _text(self, record: logging.LogRecord, emitted: bool) -> tuple[str, Any, str | None]:
        """Template, arguments and message, as `tlogs_shared.storage.record.Fields` has them."""
        template, args = record.msg, record.args
        if type(template) is not str:
            # As logging does it: any object will do for a message.
            template = self._within_depth(template, lambda: text(template, emitted=emitted))
        if not args:
            return template, None, None
        if len(args) <= MAX_ARGS:
            if type(args) is tuple and PRIMITIVES.issuperset(map(type, args)):
                return template, args, None
            if type(args) is dict and PRIMITIVES.issuperset(map(type, args.values())) and {str} >= {*map(type, args)}:
                return template, args, None
        return template, None, self._within_depth(record, lambda: message(record, emitted=emitted))

    def _within_depth(self, about: Any, make: Callable[[], str]) -> str:
        """A text of a foreign object, whatever that does."""
        thread = threading.get_ident()
        depth = self._depths.get(thread, 0)
        if depth >= MAX_DEPTH:
            return f"<{type(about).__name__}>"
        self._depths[thread] = depth + 1
        try:
            return make()
        finally:
            if depth:
                self._depths[thread] = depth
            else:
                del self._depths[thread]

    def _extra(self, record: logging.LogRecord, source: _Source) -> dict[str, Any]:
        extra: dict[str, Any] = dict(source.own)
        if source.artifact is not None:
            extra["artifact"] = source.artifact
        if source.is_torchs and self.trace_id is not None and (trace_id := self.trace_id()):
            extra["trace_id"] = trace_id
        if NAMES.get(record.levelno) != record.levelname and record.levelname != f"Level {record.levelno}":
            extra["levelname"] = str(record.levelname)
        if record.exc_info or record.exc_text:
            extra["exc"] = record.exc_text or self._within_depth(record, lambda: formatted(record.exc_info))
        if record.stack_info:
            extra["stack"] = str(record.stack_info)
        if len(record.__dict__) > len(STANDARD):
            given = {name: value for name, value in record.__dict__.items() if name not in FORMATTED}
            if given:
                extra["fields"] = fields(given)
        return extra


def _is_silent(logger: logging.Logger) -> bool:
    """Return whether torch would drop this artifact's records: it is off by default and was not turned on."""
    return not logger.propagate and not logger.handlers
