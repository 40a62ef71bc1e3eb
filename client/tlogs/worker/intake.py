"""The intake: takes each log record once, where it passes, and hands it to the outbox.

Theory of operation
-------------------
A record that its logger lets through passes `Logger.filter` exactly once, whatever handlers there are or will be. So
that is where it is taken: the method is replaced by one that answers the same. No handler is added, none can be taken
away, and while the program's own handlers run nothing of ours is on the stack. (Where a filter of the program's own
raises, its traceback has one frame more.)

Arguments that are numbers, texts, booleans and None travel beside the template; everything else is settled here, in
the thread that logs, because a tensor may have changed by the time somebody reads.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, NamedTuple

from tlogs.levels.registry import component_of
from tlogs_shared.level_names import NAMES
from tlogs_shared.storage.record import MAX_ARGS

__all__ = ["Append", "Intake", "formatted"]

Append = Callable[..., bool]
"""What takes a record's ten fields after the time stamp, as `Outbox.append` does."""

NEVER: Final = ("tlogs", "zmq")
"""Loggers that are not taken, nor those below them: a record about the transport must not go into it."""

TRACE_LOGGER: Final = "torch.__trace"
"""torch's structured trace: its records are no messages, and it has its own files."""

MAX_FIELDS: Final = 64
MAX_REPR_CHARS: Final = 4096
MAX_DEPTH: Final = 4
"""A text that logs while it is made (a `__repr__` that logs its own object) is not followed deeper."""

PRIMITIVES: Final = frozenset({int, float, str, bool, type(None)})

STANDARD: Final = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__)
"""The attributes that every record has; more are the user's, who gave them as ``extra=``."""

FORMATTED: Final = STANDARD | {"message", "asctime", "taskName", "rankprefix", "traceid", "artifactprefix"}
"""With those that formatters leave behind, torch's too."""

_formatter: Final = logging.Formatter()


Label = Callable[[str], "tuple[str | None, str | None]"]
"""Gives a logger's component and artifact."""


class _Source(NamedTuple):
    """What is to be known of a logger by its name."""

    artifact: str | None
    own: dict[str, str]
    """Component and artifact where the program registered them itself, and no reader can know them by the name."""
    traced: bool
    """Whether torch may have a trace id for its records."""
    logger: logging.Logger | None
    """Looked at for each record of an artifact: torch turns those on and off."""


class Intake:
    """Takes the records of this process, and hands each to `append`.

    `append` may be replaced at any time (a forked child gets an outbox of its own). `trace_id` gives the trace id of
    what torch is compiling in this thread; it is asked for torch's own records only. `label` gives the component and
    the artifact of a logger by this process's registry; it is asked at a logger's first record. `refused` counts
    records that could not be taken because of an error in here.
    """

    def __init__(
        self, append: Append, trace_id: Callable[[], str | None] | None = None, label: Label = component_of
    ) -> None:
        self.append = append
        self.trace_id = trace_id
        self._label = label
        self.refused = 0
        self._sources: dict[str, _Source | None] = {}
        self._plain: set[str] = set()
        self._paths: dict[str, str] = {}
        self._depths: dict[int, int] = {}
        self._original: Callable[..., Any] | None = None
        self._replacement: Callable[..., Any] | None = None
        self._active = False

    def install(self) -> None:
        """Begin to take records."""
        self._active = True
        if self._replacement is None:
            self._original = logging.Logger.filter
            self._replacement = _replacement(self, self._original)
            logging.Logger.filter = self._replacement  # type: ignore[method-assign]

    def uninstall(self) -> None:
        """Take no more records; where somebody else has put a wrapper over ours, ours stays below it without effect."""
        self._active = False
        if self._replacement is not None and logging.Logger.__dict__.get("filter") is self._replacement:
            if self._original is logging.Filterer.filter:
                del logging.Logger.filter
            else:
                logging.Logger.filter = self._original  # type: ignore[method-assign, assignment]
            self._replacement = None

    def take(self, record: logging.LogRecord) -> None:
        """Take one record. Never raises."""
        try:
            self._take(record)
        except Exception as error:  # noqa: BLE001 - a training job must not die of what stands in a record
            self.refuse(record, error)

    def refuse(self, record: logging.LogRecord, error: Exception) -> None:
        """Count a record that could not be taken, and say so in its place. Never raises."""
        self.refused += 1
        text, args = "a record of %s could not be taken: %s", (_str(record.name), _repr(error))
        try:
            self.append(logging.WARNING, "tlogs", text, args, None, "", 0, "", "", {"stream": "tlogs"})
        except Exception:  # noqa: BLE001 - as above; perhaps it is append itself that fails
            pass

    def _take(self, record: logging.LogRecord) -> None:
        name, path = str(record.name), str(record.pathname)
        source = self._source(name)
        if source is None or (source.logger is not None and _is_silent(source.logger)):
            return
        extra = self._extra(record, source)
        template, args, message = self._text(record)
        if type(record.msg) is dict:
            # c10d logs a failed collective so.
            extra["fields"] = {**_fields(record.msg), **extra.get("fields", {})}
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
        """What is known of a logger, None where its records are not taken."""
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
        if source is not None and not (source.artifact or source.own or source.traced):
            self._plain.add(name)
        return source

    def _own_label(self, name: str) -> dict[str, str]:
        found = self._label(name)
        if found == component_of(name):
            return {}
        return {key: value for key, value in zip(("component", "artifact"), found, strict=True) if value is not None}

    def short_path(self, path: str) -> str:
        """A path relative to the first entry of sys.path that holds it, as torch shows it."""
        try:
            return self._paths[path]
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
        self._paths[path] = short
        return short

    def _text(self, record: logging.LogRecord) -> tuple[str, Any, str | None]:
        """Template, arguments and message, as `tlogs_shared.storage.record.Fields` has them."""
        template, args = record.msg, record.args
        if type(template) is not str:
            # As logging does it: any object will do for a message.
            template = self._guarded(_str, template)
        if not args:
            return template, None, None
        if len(args) > MAX_ARGS:
            return template, None, self._guarded(_message, record)
        if type(args) is tuple and PRIMITIVES.issuperset(map(type, args)):
            return template, args, None
        if type(args) is dict and PRIMITIVES.issuperset(map(type, args.values())) and {str}.issuperset(map(type, args)):
            return template, args, None
        return template, None, self._guarded(_message, record)

    def _guarded(self, make: Callable[[Any], str], what: Any) -> str:
        """A text of a foreign object, whatever that does."""
        thread = threading.get_ident()
        depth = self._depths.get(thread, 0)
        if depth >= MAX_DEPTH:
            return f"<{type(what).__name__}>"
        self._depths[thread] = depth + 1
        try:
            return make(what)
        finally:
            if depth:
                self._depths[thread] = depth
            else:
                del self._depths[thread]

    def _extra(self, record: logging.LogRecord, source: _Source) -> dict[str, Any]:
        extra: dict[str, Any] = dict(source.own)
        if source.artifact is not None:
            extra["artifact"] = source.artifact
        if source.traced and self.trace_id is not None and (trace_id := self.trace_id()):
            extra["trace_id"] = trace_id
        if NAMES.get(record.levelno) != record.levelname and record.levelname != f"Level {record.levelno}":
            extra["levelname"] = str(record.levelname)
        if record.exc_info or record.exc_text:
            extra["exc"] = record.exc_text or self._guarded(formatted, record.exc_info)
        if record.stack_info:
            extra["stack"] = str(record.stack_info)
        if len(record.__dict__) > len(STANDARD):
            given = {name: value for name, value in record.__dict__.items() if name not in FORMATTED}
            if given:
                extra["fields"] = _fields(given)
        return extra


def _replacement(intake: Intake, original: Callable[..., Any]) -> Callable[..., Any]:
    """What stands in the place of `Logger.filter`."""
    plain = intake._plain
    paths = intake._paths
    standard = len(STANDARD)
    primitives = PRIMITIVES
    common = frozenset(NAMES)
    modern = sys.version_info >= (3, 12)  # a filter may put another record in the place of the first
    direct = original is logging.Filterer.filter

    def filter(self: logging.Logger, record: logging.LogRecord) -> Any:
        if self.filters or not direct:
            passed = original(self, record)
            if not passed:
                return passed
            taken = passed if isinstance(passed, logging.LogRecord) else record
        else:
            taken = record
            passed = record if modern else True
        if not intake._active:
            return passed
        try:
            # What most records are: a logger of no special kind, a text, primitives, nothing else. Everything is read
            # before `__dict__`, which slows each later access down (on 3.11 and 3.12 it has to be made first).
            name, levelno, path, args = taken.name, taken.levelno, taken.pathname, taken.args
            line, func, thread = taken.lineno, taken.funcName, taken.threadName
            if (
                name in plain
                and type(template := taken.msg) is str
                and taken.exc_info is None
                and taken.stack_info is None
                and levelno in common
                and path in paths
                and type(args) is tuple
                and len(args) <= MAX_ARGS
                and type(line) is int
                and len(taken.__dict__) == standard
            ):
                for arg in args:
                    if type(arg) not in primitives:
                        break
                else:
                    intake.append(
                        levelno, name, template, args or None, None, paths[path], line, func or "", thread or "", None
                    )
                    return passed
            intake.take(taken)
        except Exception as error:  # noqa: BLE001 - a training job must not die of what stands in a record
            intake.refuse(taken, error)
        return passed

    return filter


def _is_silent(logger: logging.Logger) -> bool:
    """Whether torch would not deliver what this logger of an artifact says: it is off by default and nobody asked."""
    return not logger.propagate and not logger.handlers


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:  # noqa: BLE001 - whatever the arguments' own texts raise
        return f"{_repr(record.msg)} {_repr(record.args)} ({type(error).__name__} when it was formatted)"


def formatted(exc_info: tuple[type[BaseException], BaseException, TracebackType | None] | Any) -> str:
    """A traceback as logging prints it."""
    try:
        return _formatter.formatException(exc_info)
    except Exception as error:  # noqa: BLE001 - an exception whose own text cannot be made
        return f"{_repr(exc_info)} ({type(error).__name__} when it was formatted)"


def _fields(given: Mapping[Any, Any]) -> dict[str, Any]:
    """The user's fields as primitives, else as what `repr` says of them, within limits."""
    fields: dict[str, Any] = {}
    for name, value in list(given.items())[:MAX_FIELDS]:
        kind = type(value)
        plain = kind in PRIMITIVES and (kind is not int or -(1 << 63) <= value < 1 << 64)
        fields[str(name)] = value if plain else _repr(value)
    return fields


def _str(value: Any) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - whatever a foreign object's text raises
        return _repr(value)


def _repr(value: Any) -> str:
    try:
        return repr(value)[:MAX_REPR_CHARS]
    except Exception as error:  # noqa: BLE001 - whatever a foreign object's text raises
        return f"<{type(value).__name__}: {type(error).__name__} in its text>"
