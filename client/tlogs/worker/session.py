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
from types import TracebackType
from typing import Any, Final

import msgpack

from tlogs.access.agent_messages import Registered
from tlogs.access.agent_start import connect, may_start
from tlogs.loggers.controller import LEVELS
from tlogs.loggers.leases import Leases
from tlogs.loggers.with_torch import trace_id
from tlogs.outbox import places
from tlogs.outbox.file import outbox_capacity
from tlogs.worker.config import Config, unknown_names
from tlogs.worker.crash import CrashHooks
from tlogs.worker.group import GroupWatch, is_in_group
from tlogs.worker.identity import helper_of, identify, learn, mark, unmark
from tlogs.worker.intake import Intake
from tlogs.worker.stream import LINGER_S, Owner, Stream
from tlogs_shared.errors import ConfigError
from tlogs_shared.host import is_running, outbox_name, outbox_owner, outbox_places
from tlogs_shared.origin import STREAM_ID_BYTES, Origin
from tlogs_shared.protocol.lease import Lease
from tlogs_shared.storage.layout import FAULT_SUFFIX

__all__ = ["Session", "current", "flush", "init", "shutdown"]

log = logging.getLogger("tlogs")

_LOGGER: Final = "tlogs"

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
        self._stream: Stream | None = None
        self._closed = False
        self._leases = Leases(LEVELS)
        self._storing: set[int] = set()
        self._opening = threading.RLock()
        self._is_opening = False
        self._begun: str | None = None
        self._learns = True
        self._intake = Intake(self._first_record, trace_id, LEVELS.label, self._stores)
        self._crash: CrashHooks | None = None
        self._is_beginning = True
        self._group = GroupWatch(self._group_made)
        if config.target is not None and self._opened():
            self._intake.install()
            self._crash = CrashHooks(self._intake, side_file=self._side_file())
            self._crash.install()
            self._group.install()
            _at_fork(self)
        self._is_beginning = False

    def __repr__(self) -> str:
        return f"<tlogs.Session of {self._origin.label}, collector {self.collector}, run {self.run}>"

    @property
    def collector(self) -> str | None:
        """The endpoint that records go to, or what names it until the agent has found it."""
        if self._stream is not None and self._stream.endpoint is not None:
            return self._stream.endpoint
        return None if self._config.target is None else self._config.target.collector

    @property
    def attempt(self) -> int:
        """Which attempt of its rank this is, by the collector's count."""
        return 0 if self._stream is None else self._stream.attempt

    @property
    def run(self) -> str | None:
        """The run's name, once the collector has said it."""
        return None if self._stream is None else self._stream.run

    @property
    def rank(self) -> int | None:
        """The rank that records are labelled with."""
        return self._origin.rank

    @property
    def stream(self) -> Stream | None:
        """Where its records go; None where they are not forwarded."""
        return self._stream

    @property
    def state(self) -> str:
        """`connected`, `waiting` or `refused` as the agent says, `none` where there is no agent."""
        return "none" if self._stream is None else self._stream.control.state

    def flush(self, timeout: float = LINGER_S) -> bool:
        """Block until everything logged so far is acknowledged; return False after *timeout* seconds."""
        stream = self._stream
        return True if stream is None else stream.flush(timeout)

    def close(self, timeout: float = LINGER_S, *, at_exit: bool = False) -> None:
        """Send what is left, for at most *timeout* seconds, and take everything off the process again.

        *at_exit* records are still taken: see `Stream.close`.
        """
        if self._closed:
            return
        self._learn()
        self._closed = True
        self._group.remove()
        if self._crash is not None:
            self._crash.uninstall()
        if at_exit:
            if self._stream is not None:
                self._stream.close(timeout, at_exit=True)
            return
        self._intake.uninstall()
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close(timeout)

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        shutdown()

    # Streams.

    def _opened(self) -> bool:
        """Open a stream; return False where no place takes its outbox: a job runs without its log being forwarded."""
        try:
            self._open()
        except OSError as error:
            self._intake.append = self._refused
            log.warning("tlogs: records of process %d are not forwarded: %s", os.getpid(), error)
            return False
        return True

    def _open(self) -> None:
        target = self._config.target
        assert target is not None
        stream = os.urandom(STREAM_ID_BYTES)
        is_helper = self._origin.helper is not None
        outbox = places.make(
            self._environ,
            outbox_name(self._origin.host, self._origin.pid, stream),
            complain=lambda text: log.warning("tlogs: %s", text),
            stream=stream,
            meta={"origin": self._origin.as_map()},
            capacity=outbox_capacity(self._environ, fork=is_helper),
            helper=is_helper,
        )
        owner = Owner(
            connect=self._connect,
            lay=self._lay,
            check=self._check,
            registered=self._registered,
            loud=is_first_here(self._origin),
        )
        self._stream = Stream(self._origin, target, outbox, owner)
        self._intake.append = outbox.append

    def _connect(self) -> int | None:
        target = self._config.target
        assert target is not None
        # At init always; later by a rank, and not where this process would have to reap the agent.
        start = self._is_beginning or (self._origin.helper is None and may_start())
        return connect(target.collector, self._environ, start=start)

    def _side_file(self) -> str | None:
        return None if self._stream is None else f"{self._stream.outbox.path}{FAULT_SUFFIX}"

    def _stores(self, pid: int) -> bool:
        """Return whether the records of another process, which come through a queue, are taken there.

        One that has ended is believed to have done so: its outbox goes when all is acknowledged.
        """
        if pid not in self._storing and is_running(pid):
            names = (path.name for place in outbox_places(self._environ) if place.is_dir() for path in place.iterdir())
            if pid not in map(outbox_owner, names):
                return False
        self._storing.add(pid)
        return True

    def _first_record(self, *values: Any) -> bool:
        """Take the first record of a forked child: from here on it has a stream of its own."""
        with self._opening:
            if self._closed or self._is_opening:
                return False  # what is logged while the outbox is made has no place yet
            if self._stream is None:
                # Only now, because multiprocessing names a process after it was forked.
                self._origin = helper_of(self._origin)
                self._is_opening = True
                try:
                    if not self._opened():
                        return False
                finally:
                    self._is_opening = False
                if self._crash is not None and (side_file := self._side_file()) is not None:
                    self._crash.follow(side_file)
                _at_child_exit(self)
                self._learn()
        return self._intake.append(*values)

    def before_fork(self) -> None:
        """End the control thread: Python 3.12 and later warn of a fork while there is any other thread."""
        stream = self._stream
        if stream is not None and self._intake.append != self._refused and stream.control.stop():
            self._intake.append = self._resumed

    def _resumed(self, *values: Any) -> bool:
        """Take the first record after a fork, and begin the control thread again.

        Not in the hook after the fork: the interpreter counts threads behind it (seen with 3.13).
        """
        stream = self._stream
        if stream is None:
            return False
        self._intake.append = stream.outbox.append
        stream.control.start()
        return stream.outbox.append(*values)

    @staticmethod
    def _refused(*values: Any) -> bool:
        return False

    def forked(self) -> None:
        """In a forked child, before anything of it runs."""
        self._opening = threading.RLock()
        self._is_opening = False
        self._intake.forked()
        if self._crash is not None:
            self._crash.watch_child()
        # A process group that came along from the parent says nothing of this process.
        self._learns = not is_in_group()
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.abandon()
            self._origin = stream.origin
            self._intake.append = self._refused if self._closed else self._first_record

    # On the control thread: nothing here may log, or ask threading for the current thread.

    def _lay(
        self, leases: Sequence[Lease], began: Sequence[Lease], ended: Sequence[Lease]
    ) -> tuple[Mapping[int, Sequence[str]], bytes]:
        laid = self._leases.lay(leases, began, ended)
        for text, fields in laid.records:
            self._note(text, fields)
        return laid.answers, msgpack.packb(laid.report, unicode_errors="surrogatepass")

    def _note(self, text: str, fields: Mapping[str, Any]) -> None:
        """Write a record of our own into this stream."""
        extra = {"stream": "tlogs", "fields": fields}
        self._intake.append(logging.INFO, _LOGGER, text, None, None, "", 0, "", "tlogs", extra)

    def _check(self) -> bool:
        """Compare levels where that is the only way, and look for a rank; True while that has to be done again."""
        LEVELS.check()
        self._learn()
        return LEVELS.is_polled or (self._origin.provisional and self._group.is_blind)

    def _registered(self, message: Registered) -> None:
        """The agent has said where the records go: from then on the run knows which attempt of a rank this is."""
        origin = self._origin
        if message.run is None or message.run == self._begun or origin.rank is None or origin.helper is not None:
            return
        self._begun = message.run
        text = f"rank {origin.rank} attempt {message.attempt} began on {origin.host}"
        self._note(text, {"event": "began", "attempt": message.attempt})

    # On whichever thread makes a process group.

    def _group_made(self) -> None:
        self._learns = True
        self._learn()

    def _learn(self) -> None:
        """Label the stream with the rank that torch.distributed gives this process, if that is news."""
        if self._stream is None or not self._learns:
            return  # a forked child has no label before its first record
        learnt = learn(self._origin)
        if learnt is not self._origin:
            self._origin = learnt
            mark(os.environ, learnt)
            self._stream.relabel(learnt)


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
        if config.target is not None:
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


def _at_fork(session: Session) -> None:
    """Have *session* told in forked children, for as long as it lives."""
    reference = weakref.ref(session)

    def before() -> None:
        if (alive := reference()) is not None:
            alive.before_fork()

    def forked() -> None:
        global _lock
        _lock = threading.RLock()
        if (alive := reference()) is not None:
            alive.forked()

    os.register_at_fork(after_in_child=forked)
    if sys.version_info >= (3, 12):
        os.register_at_fork(before=before)


def _at_child_exit(session: Session) -> None:
    """A child of multiprocessing leaves without running exit handlers, except those of its own kind."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.Finalize(None, session.close, exitpriority=-100)
