"""This process's tlogs: from `init()` to `shutdown()`, across forks.

A forked child inherits the levels and nothing else: threads, sockets and the outbox are its parent's. Its first
record gets it a stream of its own, as a helper of the rank that it was forked from.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Final

from tlogs.access.discovery import Address
from tlogs.loggers.controller import LEVELS, trace_id
from tlogs.outbox.file import SIDE_SUFFIX
from tlogs.worker.config import Config, unknown_names
from tlogs.worker.crash import CrashHooks
from tlogs.worker.forwarder import GREET_S, LINGER_S, Hooks
from tlogs.worker.identity import helper_of, identify, is_in_group, learn, mark, unmark
from tlogs.worker.intake import Intake
from tlogs.worker.link import Lay
from tlogs.worker.recovery import inherit
from tlogs.worker.stream import Channel
from tlogs_shared.errors import ConfigError, TlogsError
from tlogs_shared.origin import Origin
from tlogs_shared.protocol.lease import Lease

__all__ = ["Session", "current", "flush", "init", "shutdown"]

log = logging.getLogger("tlogs")

_LOGGER: Final = "tlogs"

HELPER_LINGER_S: Final = LINGER_S - GREET_S + 0.2
"""At the end of a forked helper: a fifth of a second for a collector that has not answered yet, not a whole one. There
may be dozens of them in each epoch, and what they leave is brought in later."""

_lock = threading.RLock()
_current: Session | None = None


class Session:
    """What `init` returns: a context manager that shuts down at its end.

    `collector` is the endpoint that records go to, None where they are not forwarded.
    """

    def __init__(self, config: Config, origin: Origin, environ: Mapping[str, str]) -> None:
        """Begin; see `init`."""
        self.arguments: Mapping[str, Any] = {}
        self._config = config
        self._environ = dict(environ)
        self._origin = origin
        self._channel: Channel | None = None
        self._closed = False
        self._answers: dict[int, Sequence[str]] = {}
        self._noted: set[int] = set()
        self._opening = threading.RLock()
        self._is_opening = False
        self._learns = True
        self._intake = Intake(self._first_record, trace_id, LEVELS.label)
        self._crash: CrashHooks | None = None
        if config.address is not None:
            self._open()
            self._intake.install()
            self._crash = CrashHooks(self._intake, side_file=self._side_file())
            self._crash.install()
            _at_fork(self)
            if config.address.directory is None and is_first_here(origin):
                inherit(config.address, self._environ)

    def __repr__(self) -> str:
        return f"<tlogs.Session of {self._origin.label}, collector {self.collector}, run {self.run}>"

    @property
    def collector(self) -> str | None:
        """The endpoint that records go to."""
        return None if self._config.address is None else str(self._config.address.endpoint)

    @property
    def address(self) -> Address | None:
        """Where the collector is, and its secret."""
        return self._config.address

    @property
    def attempt(self) -> int:
        """Which attempt of its rank this is, by the collector's count."""
        return 0 if self._channel is None else self._channel.link.attempt

    @property
    def run(self) -> str | None:
        """The run's name, once the collector has said it."""
        return None if self._channel is None else self._channel.link.run

    @property
    def rank(self) -> int | None:
        """The rank that records are labelled with."""
        return self._origin.rank

    def flush(self, timeout: float = LINGER_S) -> bool:
        """Block until everything logged so far is acknowledged; return False after *timeout* seconds."""
        channel = self._channel
        return True if channel is None else channel.forwarder.flush(timeout)

    def close(self, timeout: float = LINGER_S, *, at_exit: bool = False) -> None:
        """Send what is left, for at most *timeout* seconds, and take everything off the process again.

        *at_exit* records are still taken: see `Channel.close`.
        """
        if self._closed:
            return
        self._closed = True
        if self._crash is not None:
            self._crash.uninstall()
        if at_exit:
            if self._channel is not None:
                self._channel.close(timeout, at_exit=True)
            return
        self._intake.uninstall()
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close(timeout)

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        shutdown()

    # Streams.

    def _open(self) -> Channel:
        assert self._config.address is not None
        hooks = Hooks(
            lay=self._lay,
            every_second=self._every_second,
            loud=is_first_here(self._origin),
        )
        channel = Channel(self._origin, self._config.address, self._environ, hooks)
        self._channel = channel
        self._intake.append = channel.append
        return channel

    def _side_file(self) -> str | None:
        return None if self._channel is None else f"{self._channel.outbox.path}{SIDE_SUFFIX}"

    def _first_record(self, *values: Any) -> bool:
        """Take the first record of a forked child: from here on it has a stream of its own."""
        with self._opening:
            if self._closed or self._is_opening:
                return False  # what is logged while the outbox is made has no place yet
            if self._channel is None:
                # Only now, because multiprocessing names a process after it was forked.
                self._origin = helper_of(self._origin)
                self._is_opening = True
                try:
                    self._open()
                except (TlogsError, OSError) as error:
                    self._intake.append = _refuse
                    log.warning("tlogs: process %d cannot be heard: %s", os.getpid(), error)
                    return False
                finally:
                    self._is_opening = False
                if self._crash is not None and (side_file := self._side_file()) is not None:
                    self._crash.follow(side_file)
                _at_child_exit(self)
        return self._intake.append(*values)

    def forked(self) -> None:
        """In a forked child, before anything of it runs."""
        self._opening = threading.RLock()
        self._is_opening = False
        # A process group that came along from the parent says nothing of this process.
        self._learns = not is_in_group()
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.abandon()
            _inherited.append(channel)  # its socket and its context must not be taken down here
            self._origin = channel.origin
            self._intake.append = _refuse if self._closed else self._first_record

    # On the forwarder's thread.

    def _lay(self, action: Lay) -> tuple[Mapping[int, Sequence[str]], Mapping[str, Any]]:
        # Each lease that is new is judged with those below it; a rank may get several at once.
        new = {lease.revision for lease in action.began} - self._answers.keys()
        for end, lease in enumerate(action.leases, 1):
            if lease.revision in new or end == len(action.leases):
                outcome = LEVELS.overlay(action.leases[:end])
                self._answers[lease.revision] = (outcome.kind, outcome.reason)
        if not action.leases:
            LEVELS.overlay([])
        in_force = {lease.revision for lease in action.leases}
        self._answers = {revision: answer for revision, answer in self._answers.items() if revision in in_force}
        # What this rank could not do, a name that it does not know say, is in its answer and not worth a record.
        for lease in action.began:
            if self._answers[lease.revision][0] != "failed":
                self._noted.add(lease.revision)
                self._note(f"lease {lease.revision} began: {_describe(lease)}", lease)
        for lease in action.ended:
            if lease.revision in self._noted:
                self._noted.discard(lease.revision)
                self._note(f"lease {lease.revision} ended: {_describe(lease)}", lease)
        return self._answers, LEVELS.report()

    def _note(self, text: str, lease: Lease) -> None:
        """A record of our own in this stream."""
        fields = {"revision": lease.revision, "settings": dict(lease.settings), "author": lease.author}
        extra = {"stream": "tlogs", "fields": fields}
        self._intake.append(logging.INFO, _LOGGER, text, None, None, "", 0, "", "tlogs-forwarder", extra)

    def _every_second(self) -> None:
        channel = self._channel
        if channel is None:
            return
        channel.keep_meta()
        LEVELS.check()
        learnt = learn(self._origin) if self._learns else self._origin
        if learnt is not self._origin:
            self._origin = learnt
            channel.relabel(learnt)


def is_first_here(origin: Origin) -> bool:
    """Whether this process acts and complains on behalf of its host: the first rank on it does."""
    return origin.helper is None and origin.local_rank in (0, None)


def init(
    *,
    collector: str | None = None,
    run: str | None = None,
    rank: int | None = None,
    local_rank: int | None = None,
    world_size: int | None = None,
    secret: str | None = None,
    outbox_dir: str | None = None,
) -> Session:
    """Apply TORCH_LOGS and forward this process's records to the collector; an argument beats the environment.

    Without a collector's address (*collector*, or TLOGS_COLLECTOR) levels are applied and nothing is forwarded.
    Called again it returns the same session.

    Raises:
        ConfigError: a variable or argument that cannot be used, or an argument other than that of the call before;
            the text names it.
        DirectiveError: TORCH_LOGS cannot be understood.
        StoreError: the outbox cannot be made.
        CollectorUnavailable: this process has hardly any descriptors left for a socket.
    """
    global _current
    environ = dict(os.environ)
    if outbox_dir is not None:
        environ["TLOGS_OUTBOX_DIR"] = outbox_dir
    config = Config.from_environ(environ, collector=collector, secret=secret)
    arguments = {"collector": collector, "run": run, "rank": rank, "local_rank": local_rank, "world_size": world_size}
    with _lock:
        if _current is not None:
            for name, value in arguments.items():
                before = _current.arguments.get(name)
                if value is not None and before not in (None, value):
                    raise ConfigError(f"init({name}={value!r}) after init({name}={before!r}); call shutdown() between")
            return _current
        if config.disabled:
            _current = Session(config, identify({}), environ)
            return _current
        origin = identify(environ, run=run, rank=rank, local_rank=local_rank, world_size=world_size)
        for sentence in unknown_names(environ):
            log.warning("tlogs: %s", sentence)
        LEVELS.start(environ)
        if config.capture_warnings:
            logging.captureWarnings(True)
        _current = Session(config, origin, environ)
        _current.arguments = arguments
        if config.address is not None:
            mark(os.environ, origin)
            atexit.register(_at_exit)
        return _current


def flush(timeout: float = LINGER_S) -> bool:
    """Block until everything logged so far is acknowledged; return False after *timeout* seconds."""
    return True if _current is None else _current.flush(timeout)


def shutdown(timeout: float = LINGER_S) -> None:
    """Send what is left and take tlogs off this process; at exit this happens by itself. Levels stay as they are."""
    global _current
    with _lock:
        session, _current = _current, None
    if session is not None:
        unmark(os.environ)
        session.close(timeout)


def _at_exit() -> None:
    if _current is not None:
        _current.close(at_exit=True)


def current() -> Session | None:
    """The session of this process."""
    return _current


_inherited: list[Channel] = []
"""What a child got from its parent and must neither use nor close: ZeroMQ's threads did not come along."""


def _refuse(*values: Any) -> bool:
    return False


def _at_fork(session: Session) -> None:
    """Have *session* told in forked children, for as long as it lives."""
    reference = weakref.ref(session)

    def forked() -> None:
        global _lock
        _lock = threading.RLock()
        alive = reference()
        if alive is not None:
            alive.forked()

    os.register_at_fork(after_in_child=forked)


def _at_child_exit(session: Session) -> None:
    """A child of multiprocessing leaves without running exit handlers, except those of its own kind."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.Finalize(None, session.close, args=(HELPER_LINGER_S,), exitpriority=-100)


def _describe(lease: Lease) -> str:
    settings = ", ".join(f"{name}={_value(value)}" for name, value in sorted(lease.settings.items()))
    until = ""
    if lease.ends_ns is not None:
        until = f" until {datetime.fromtimestamp(lease.ends_ns / 1e9).astimezone():%H:%M:%S}"
    return f"{settings or 'defaults'}{until}" + (f" (by {lease.author})" if lease.author else "")


def _value(value: int | bool) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return logging.getLevelName(value)
