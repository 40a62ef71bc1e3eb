"""Last words: exceptions that nobody caught, and what faulthandler writes when the process is killed by a fault.

The hooks are chained: what the program prints without tlogs it prints with it. faulthandler writes into a file of its
own beside the outbox, which whoever recovers the outbox reads too; where the user has enabled it, theirs stays.
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
from tlogs.worker.intake import Intake, formatted

__all__ = ["CrashHooks"]

MAIN_THREAD: Final = "MainThread"
"""Python's name for it; an exception there is the usual case, and only another thread is worth naming."""


class CrashHooks:
    """Takes each exception that reaches one of the interpreter's hooks, as a CRITICAL record with its traceback."""

    def __init__(self, intake: Intake, *, side_file: str | None = None) -> None:
        """Prepare; *side_file* is the path of faulthandler's file, None for none."""
        self._intake = intake
        self._side_file = side_file
        self._descriptor: Descriptor | None = None
        # Not the exception itself: with its frames it would keep the program's objects from their end at exit.
        self._last_id = 0
        self._hooks: list[tuple[Any, str, Callable[..., Any], Callable[..., Any]]] = []

    def install(self) -> None:
        """Chain the hooks, and enable faulthandler unless it is."""
        if not self._hooks:
            self._chain(sys, "excepthook", self._uncaught)
            self._chain(threading, "excepthook", self._uncaught_in_thread)
            self._chain(sys, "unraisablehook", self._unraisable)
        if self._side_file is not None and not faulthandler.is_enabled():
            self._open(self._side_file)
            if self._descriptor is not None:
                os.register_at_fork(after_in_child=self._forked)

    def uninstall(self) -> None:
        """Take the hooks off where they are still ours, and record what a hook of the program's own kept from us."""
        self._uncaught_at_exit()
        for owner, name, ours, before in self._hooks:
            if getattr(owner, name) is ours:
                setattr(owner, name, before)
        self._hooks.clear()
        # faulthandler stays as it is: nobody can say whether the user has enabled it since.
        if self._descriptor is not None and self._side_file is not None:
            _unlink(self._side_file)

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
                os.close(fd)  # the program has closed ours: nobody can say whether faulthandler is the user's by now
        except OSError:
            return  # without it the outbox is as good as before

    def _forked(self) -> None:
        # What a child writes must not stand in its parent's file.
        if self._descriptor is not None:
            self._side_file = None
            self._open(os.devnull)

    def _chain(self, owner: Any, name: str, take: Callable[..., None]) -> None:
        before = getattr(owner, name)

        def hook(*args: Any) -> Any:
            try:
                take(*args)
            except Exception:  # noqa: BLE001 - the program's own hook must run, whatever is wrong with ours
                pass
            return before(*args)

        setattr(owner, name, hook)
        self._hooks.append((owner, name, hook, before))

    def _uncaught(
        self, kind: type[BaseException], error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self._last_id = id(error)
            self._take(kind, error, traceback, threading.current_thread().name)

    def _uncaught_in_thread(self, args: threading.ExceptHookArgs) -> None:
        if args.exc_type is SystemExit:
            return  # as threading does
        name = "" if args.thread is None else args.thread.name
        self._take(args.exc_type, args.exc_value, args.exc_traceback, name)

    def _unraisable(self, args: Any) -> None:
        what = (args.err_msg or "Exception ignored in", _text(args.object))
        thread = threading.current_thread().name
        self._take(args.exc_type, args.exc_value, args.exc_traceback, thread, what)

    def _uncaught_at_exit(self) -> None:
        """The program may have put a hook of its own in the place of ours; the interpreter remembers the exception."""
        error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
        if error is not None and id(error) != self._last_id and not hasattr(sys, "ps1"):
            self._uncaught(type(error), error, error.__traceback__)

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
        if text := _text(error):
            template, args = f"{template}: %s", [*args, text]
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


def _text(value: Any) -> str:
    try:
        return str(value) if isinstance(value, BaseException) or value is None else repr(value)
    except Exception as error:  # noqa: BLE001 - whatever a foreign object's text raises
        return f"<{type(value).__name__}: {type(error).__name__} in its text>"


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass
