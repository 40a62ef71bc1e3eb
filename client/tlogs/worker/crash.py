"""Last words: exceptions that nobody caught, and what faulthandler writes when the process is killed by a fault.

The console is what it is without tlogs. `sys.excepthook` stays the original where it is: libraries install their own
only then. The interpreter remembers an uncaught exception before it calls the hook, and we look when it has: before
threads are joined, at exit, and in a child of multiprocessing where its parent's bookkeeping is taken down. A hook
that the program had before us may end the process; that is chained.

faulthandler writes into a file of its own beside the outbox, which whoever recovers the outbox reads too; where the
user has enabled it, theirs stays.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
from collections.abc import Callable
from logging import CRITICAL
from types import TracebackType
from typing import Any, Final

from tlogs.outbox.descriptors import Descriptor, standard_streams_kept
from tlogs.outbox.file import CRASH_LOGGER
from tlogs.worker.arguments import formatted, shown, text
from tlogs.worker.intake import Intake

__all__ = ["CrashHooks"]

MAIN_THREAD: Final = "MainThread"
"""Python's name for it; an exception there is the usual case, and only another thread is worth naming."""


FIRST_OF_ALL: Final = 1 << 30
"""Finalizers of multiprocessing run by priority; others take down what the exception is about."""


class CrashHooks:
    """Takes each exception that reaches one of the interpreter's hooks, as a CRITICAL record with its traceback."""

    def __init__(self, intake: Intake, *, side_file: str | None = None) -> None:
        """Prepare; *side_file* is the path of faulthandler's file, None for none."""
        self._intake = intake
        self._side_file = side_file
        self._descriptor: Descriptor | None = None
        # Not the exception itself: with its frames it would keep the program's objects from their end at exit.
        self._last_id = 0
        self._send_back: Callable[..., None] | None = None
        self._hooks: list[tuple[Any, str, Callable[..., Any], Callable[..., Any]]] = []

    def install(self) -> None:
        """Chain the hooks, and enable faulthandler unless it is."""
        if not self._hooks:
            if sys.excepthook is not sys.__excepthook__:
                self._chain(sys, "excepthook", lambda *_: self.look())
            self._chain(threading, "excepthook", self._uncaught_in_thread)
            self._chain(sys, "unraisablehook", self._unraisable)
            _before_threads_are_joined(self.look)
            if "multiprocessing.process" in sys.modules:
                self.watch_child()
        if self._side_file is not None and not faulthandler.is_enabled():
            self._open(self._side_file)
            if self._descriptor is not None:
                os.register_at_fork(after_in_child=self._forked)

    def watch_child(self) -> None:
        """In a child of multiprocessing: see what ends it, which no hook of the interpreter does."""
        util = sys.modules.get("multiprocessing.util")
        if util is None:
            return
        # The finalizers that are there when such a child begins are dropped, and these calls follow.
        util.register_after_fork(self, CrashHooks._child_begins)
        self._child_begins()

    def _child_begins(self) -> None:
        sys.modules["multiprocessing.util"].Finalize(None, self.look_at_handled, exitpriority=FIRST_OF_ALL)
        pool: Any = sys.modules.get("concurrent.futures.process")
        if pool is not None and self._send_back is None:
            self._send_back = pool._sendback_result
            pool._sendback_result = self._send_result

    def uninstall(self) -> None:
        """Take the hooks off where they are still ours, and record an uncaught exception that was not seen yet."""
        self.look()
        for owner, name, ours, before in self._hooks:
            if getattr(owner, name) is ours:
                setattr(owner, name, before)
        self._hooks.clear()
        pool: Any = sys.modules.get("concurrent.futures.process")
        if pool is not None and self._send_back is not None:
            pool._sendback_result, self._send_back = self._send_back, None
        # faulthandler stays as it is: the user may have enabled it since.
        if self._descriptor is not None and self._side_file is not None:
            _unlink(self._side_file)

    def look(self) -> None:
        """Record the exception that has ended the program, if one has."""
        error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
        if self._hooks and isinstance(error, BaseException) and _ended_main(error) and not hasattr(sys, "ps1"):
            self._uncaught(error)

    def look_at_handled(self) -> None:
        """Record the exception on whose way out of a process of multiprocessing we are called, if there is one."""
        error = sys.exc_info()[1]
        if isinstance(error, SystemExit) and _module_of(error) == "torch.multiprocessing.spawn":
            error = error.__context__  # which it has written into a file for the parent
        if error is not None and not isinstance(error, SystemExit):
            self._uncaught(error)

    def _send_result(self, *args: Any, **given: Any) -> None:
        """As `concurrent.futures.process` does it, in a worker of a pool."""
        remote = given.get("exception") or (args[3] if len(args) > 3 else None)
        error = getattr(remote, "exc", remote)
        if isinstance(error, BaseException):
            self._guarded(self._uncaught, error)
        assert self._send_back is not None
        self._send_back(*args, **given)

    def follow(self, side_file: str) -> None:
        """Write faults into another file from now on: in a forked child, that beside its own outbox."""
        if self._descriptor is not None:
            self._side_file = side_file
            self._open(side_file)

    def _open(self, path: str) -> None:
        """Have faulthandler write into *path*: behind the descriptor that it has, if that is still ours."""
        try:
            with standard_streams_kept():
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            if self._descriptor is None:
                self._descriptor = Descriptor(fd)
                faulthandler.enable(self._descriptor.number)
            elif not self._descriptor.replace(fd):
                os.close(fd)  # the program has closed ours: faulthandler may be the user's by now
        except OSError:
            return  # without it the outbox is as good as before

    def _forked(self) -> None:
        # A child's output must not end up in its parent's file.
        if self._descriptor is not None:
            self._side_file = None
            self._open(os.devnull)

    def _chain(self, owner: Any, name: str, take: Callable[..., None]) -> None:
        before = getattr(owner, name)

        def hook(*args: Any) -> Any:
            self._guarded(take, *args)
            return before(*args)

        setattr(owner, name, hook)
        self._hooks.append((owner, name, hook, before))

    @staticmethod
    def _guarded(take: Callable[..., None], *args: Any) -> None:
        try:
            take(*args)
        except Exception:  # noqa: BLE001 - the program's own hook must run, whatever is wrong with ours
            pass

    def _uncaught(self, error: BaseException) -> None:
        if id(error) != self._last_id:
            self._last_id = id(error)
            self._take(type(error), error, error.__traceback__, threading.current_thread().name)

    def _uncaught_in_thread(self, args: threading.ExceptHookArgs) -> None:
        if args.exc_type is SystemExit:
            return  # as threading does
        name = "" if args.thread is None else args.thread.name
        self._take(args.exc_type, args.exc_value, args.exc_traceback, name)

    def _unraisable(self, args: Any) -> None:
        what = (args.err_msg or "Exception ignored in", _text(args.object))
        thread = threading.current_thread().name
        self._take(args.exc_type, args.exc_value, args.exc_traceback, thread, what)

    def _take(
        self,
        kind: type[BaseException],
        error: BaseException | None,
        traceback: TracebackType | None,
        thread: str,
        what: tuple[str, str] | None = None,
    ) -> None:
        path, line, func = _where(traceback)
        template, args = "uncaught %s", [kind.__name__]
        if said := _text(error):
            template, args = f"{template}: %s", [*args, said]
        if thread != MAIN_THREAD:
            template, args = f"{template} in thread %s", [*args, thread]
        if what is not None:
            template, args = f"{template} (%s: %s)", [*args, *what]
        extra = {"exc": formatted((kind, error, traceback))}
        self._intake.append(
            CRITICAL,
            CRASH_LOGGER,
            template,
            tuple(args),
            None,
            self._intake.short_path(path),
            line,
            func,
            thread,
            extra,
        )


def _where(traceback: TracebackType | None) -> tuple[str, int, str]:
    """Path, line and function where the exception was raised."""
    if traceback is None:
        return "", 0, ""
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    code = traceback.tb_frame.f_code
    return code.co_filename, traceback.tb_lineno or 0, code.co_name


def _module_of(error: BaseException) -> str:
    """The module that raised an exception."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return "" if traceback is None else str(traceback.tb_frame.f_globals.get("__name__"))


def _ended_main(error: BaseException) -> bool:
    """Return whether an exception has left the main module; debuggers and test runners remember caught ones, too."""
    if error.__traceback__ is None:
        return True
    frame = error.__traceback__.tb_frame
    if frame.f_code.co_name == "<module>":
        return frame.f_globals.get("__name__") == "__main__"
    return frame.f_globals.get("__name__") == "runpy"


def _before_threads_are_joined(call: Callable[[], None]) -> None:
    """Have *call* called when the main thread has ended: other threads may keep the process alive for long."""
    register = getattr(threading, "_register_atexit", None)
    if register is not None:
        try:
            register(call)
        except RuntimeError:  # that is over
            pass


def _text(value: Any) -> str:
    """The text of an exception, or of what could not raise it."""
    return text(value, emitted=True) if isinstance(value, BaseException) or value is None else shown(value)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass
