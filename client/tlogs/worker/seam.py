"""The seam: where each record that its logger lets through passes exactly once.

Theory of operation
-------------------
A record that its logger lets through passes `Logger.filter` exactly once, whatever handlers there are or will be. So
that is where it is taken: the method is replaced by one that answers the same. No handler is added, none can be taken
away, and while the program's own handlers run nothing of ours is on the stack.

Nor while its filters run: a filter may look at its caller's frame, log or warn with a `stacklevel`, or raise. So the
few lines of `Filterer.filter` are in our method itself, which claims to be in logging's file, at the
lines where the filters are called there. What else is on the stack is counted as before, and a traceback is the same.

A class of loggers may have a `filter` of its own, which has the last word: that is wrapped. One whose `handle` asks no
filter at all has its `callHandlers` wrapped, and where it does not call that either the person at the terminal is told.
"""

from __future__ import annotations

import logging
import sys
import types
from collections.abc import Callable
from typing import Any, Final, Protocol

from tlogs.loggers.import_hook import ImportHook
from tlogs.worker.arguments import PRIMITIVES
from tlogs_shared.level_names import NAMES
from tlogs_shared.storage.record import MAX_ARGS

__all__ = ["Seam"]

log = logging.getLogger("tlogs")

STANDARD_SIZE: Final = len(logging.LogRecord("", 0, "", 0, "", (), None).__dict__)
"""How many attributes a record has that nobody has added any to."""

_Filter = Callable[[Any, Any], Any]


class Taker(Protocol):
    """Takes the records: an `Intake`."""

    append: Callable[..., bool]
    is_active: bool
    pid: int
    """0 while it is not active."""
    paths: dict[str, str]

    def is_plain(self, name: str) -> bool:
        """Return whether this logger is of no special kind."""

    def take(self, record: logging.LogRecord, logger: logging.Logger | None = None) -> None:
        """Take one record that *logger* lets through."""

    def refuse(self, record: logging.LogRecord, error: Exception) -> None:
        """Count a record that could not be taken."""


class Seam:
    """Our methods in the classes of loggers, while they are installed."""

    def __init__(self, intake: Taker) -> None:
        self._intake = intake
        self._replaced: list[tuple[type, str, Any, Any]] = []
        self._wrapped: set[type] = set()
        """Classes whose records are taken by a wrapper, not by the method of `Logger`."""
        self._hook = ImportHook("logging", lambda module: self.install())

    def install(self) -> None:
        """Begin; again, where the program has loaded logging anew, with its new classes."""
        base: Any = logging.Logger
        if not any(kind is base for kind, *_ in self._replaced):
            before = base.__dict__.get("filter")
            self._put(base, "filter", _filter(self._intake, before, self._wrapped))
            seam = self

            def born(cls: Any, /, **given: Any) -> None:
                super(base, cls).__init_subclass__(**given)
                if seam._intake.is_active:
                    seam._look_at(cls)

            self._put(base, "__init_subclass__", classmethod(born))
            for kind in sorted(_tree(base) - {base}, key=lambda kind: len(kind.__mro__)):  # parents first
                self._look_at(kind)
            self._hook.remove()
            self._hook.install()

    def uninstall(self) -> None:
        """Give each method back that is still ours; a wrapper of somebody else's keeps ours below it."""
        self._hook.remove()
        kept = []
        for kind, name, before, ours in reversed(self._replaced):
            if kind.__dict__.get(name) is not ours:
                kept.append((kind, name, before, ours))
            elif before is None:
                delattr(kind, name)
            else:
                setattr(kind, name, before)
        self._replaced = kept[::-1]
        self._wrapped.difference_update({*self._wrapped} - {kind for kind, *_ in kept})

    def _put(self, kind: type, name: str, ours: Any) -> None:
        self._replaced.append((kind, name, kind.__dict__.get(name), ours))
        setattr(kind, name, ours)

    def _look_at(self, kind: type) -> None:
        """Take the records of a class of loggers, if its parents' seams do not."""
        own = kind.__dict__
        asks = _names(own.get("handle"))
        if isinstance(own.get("filter"), types.FunctionType):
            self._put(kind, "filter", _wrapper(self._intake, kind, "filter"))
            self._wrapped.add(kind)
        elif asks is not None and not asks & {"filter", "handle"}:
            if "callHandlers" in asks:
                self._put(kind, "callHandlers", _wrapper(self._intake, kind, "callHandlers"))
            else:
                name = f"{kind.__module__}.{kind.__qualname__}"
                log.warning("tlogs: %s.handle() asks no filter: records of such loggers are not collected", name)
        if any(parent in self._wrapped for parent in kind.__mro__[1:]):
            self._wrapped.add(kind)


def _tree(kind: type) -> set[type]:
    """A class and all below it."""
    children: list[type] = type.__subclasses__(kind)
    return {kind}.union(*map(_tree, children))


def _names(method: Any) -> set[str] | None:
    """The names that a method mentions; None where that cannot be known."""
    return set(method.__code__.co_names) if isinstance(method, types.FunctionType) else None


def _filter(intake: Taker, below: Any, wrapped: set[type]) -> _Filter:
    """The replacement of `Logger.filter`; *below* is the replaced method, None where it was the base class's."""
    plain: set[str] = set()
    paths, standard_size = intake.paths, STANDARD_SIZE
    primitives, max_args = PRIMITIVES, MAX_ARGS
    common = frozenset(NAMES)
    modern = sys.version_info >= (3, 12)  # a filter may put another record in the place of the first
    Filterer, Record = logging.Filterer, logging.LogRecord
    if below is Filterer.filter:
        below = None
    original: Any = Filterer.filter if below is None and _is_standard(Filterer.filter) else None

    # It has no globals of ours, and the lines that call a filter are indented as in logging: tracebacks mark columns.
    def filter(self: Any, record: Any) -> Any:
        filters = self.filters
        passed = record if modern else True
        if Filterer.filter is not original:
            passed = (below or Filterer.filter)(self, record)
            if not passed:
                return passed
            if isinstance(passed, Record):
                record = passed
            filters = ()
        for f in filters:
            if hasattr(f, "filter"):
                result = f.filter(record)
            else:
                result = f(record)
            if not result:
                return False
            if modern and isinstance(result, Record):
                passed = record = result
        try:
            # Most records: a logger of no special kind, a text, primitives, nothing else. Everything is read
            # before `__dict__`, which slows each later access down (on 3.11 and 3.12 it has to be made first).
            name, levelno, path, args = record.name, record.levelno, record.pathname, record.args
            line, func, thread = record.lineno, record.funcName, record.threadName
            if (
                name in plain
                and type(template := record.msg) is str
                and record.exc_info is None
                and record.stack_info is None
                and levelno in common
                and path in paths
                and record.process == intake.pid
                and type(args) is tuple
                and len(args) <= max_args
                and type(line) is int
                and len(record.__dict__) == standard_size
            ):
                for arg in args:
                    if type(arg) not in primitives:
                        break
                else:
                    intake.append(
                        levelno, name, template, args or None, None, paths[path], line, func or "", thread or "", None
                    )
                    return passed
            if intake.is_active and type(self) not in wrapped:
                intake.take(record, self)
                if intake.is_plain(name):
                    plain.add(name)
        except Exception as error:  # noqa: BLE001 - a training job must not die of what is in a record
            intake.refuse(record, error)
        return passed

    made: _Filter = _of_logging(filter, 0)
    if original is not None:
        made = _of_logging(filter, _line_of_call(original) - _line_of_call(made))
    return made


def _wrapper(intake: Taker, kind: type, name: str) -> Callable[[Any, Any], Any]:
    """A method of *kind* that takes what passes its own: what `filter` lets through, what `callHandlers` is given."""
    own = kind.__dict__.get(name) or getattr(kind, name)
    is_filter, modern, Record = name == "filter", sys.version_info >= (3, 12), logging.LogRecord

    def method(self: Any, record: Any) -> Any:
        passed = own(self, record) if is_filter else record
        # Where a subclass's method calls this one, that takes the record.
        if passed and intake.is_active and getattr(type(self), name) is ours:
            intake.take(passed if modern and isinstance(passed, Record) else record, self)
        return passed if is_filter else own(self, record)

    ours: _Filter = _of_logging(method, 0)
    return ours


def _of_logging(function: Any, shift: int) -> Any:
    """The function as one of logging's own, with its lines *shift* further down: nobody takes it for a caller."""
    code = function.__code__
    code = code.replace(co_filename=logging._srcfile, co_firstlineno=max(1, code.co_firstlineno + shift))
    return types.FunctionType(code, vars(logging), code.co_name, None, function.__closure__)


def _is_standard(method: Any) -> bool:
    return isinstance(method, types.FunctionType) and method.__code__.co_filename == logging._srcfile


def _line_of_call(method: _Filter) -> int:
    """The line in which a method calls a filter, as the filter sees it."""
    seen: list[int] = []
    filterer = logging.Filterer()

    class Probe:
        def filter(self, record: Any) -> bool:
            seen.append(sys._getframe(1).f_lineno)
            return False

    filterer.addFilter(Probe())
    method(filterer, None)
    return seen[0]
