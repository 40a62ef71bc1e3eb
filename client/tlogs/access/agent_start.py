"""Connecting to the agent of this host, and starting it where there is none.

Theory of operation
-------------------
Of many processes that start at once, one must start the agent and all must be served by it. So, under a lock, the
starter binds and listens before there is an agent, and hands the listening socket over; the others connect at once and
wait in its backlog.

The agent is started by a shell in the background, so that it is nobody's child, by vfork and exec alone: a fork of a
large process takes a tenth of a second and runs every hook that it has for forks. It gets an environment of its own,
no descriptor but the socket, and every processor that this process may use.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from time import monotonic, sleep, time
from typing import Any, Final

from tlogs.access.agent_place import LOCK_SUFFIX, Place, find_place, reach
from tlogs_shared.unix_socket import open_private

__all__ = ["LISTENER_FD", "connect", "listen", "may_start"]

BACKLOG: Final = 1024
START_EVERY_S: Final = 10.0
MAX_STARTS: Final = 5
"""An agent that dies as soon as it is started must not be started for ever: the last starts stand in the lock file,
from which an agent that leaves in good order takes them again."""

REMEMBERED_S: Final = 3600.0

KEPT: Final = ("PATH", "LD_LIBRARY_PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "SLURM_JOB_ID", "SLURM_STEP_ID")
KEPT_PREFIXES: Final = ("XDG_", "TLOGS_")
NOT_KEPT: Final = ("TLOGS_ATTACH", "TLOGS_SECRET")
"""What a process keeps to itself: it is told to the agent with the registration, if at all."""

LISTENER_FD: Final = 3
"""Which descriptor of the agent is the listening socket."""

TURN_S: Final = 0.2
"""How long the start of an agent by another process is waited for; it takes some milliseconds."""

NO_AGENT: Final = frozenset({errno.ECONNREFUSED, errno.ENOENT})


def connect(collector: str, environ: Mapping[str, str], *, start: bool) -> int | None:
    """A descriptor of a connection to the agent for *collector*, non-blocking; None where there is none.

    With *start* one is started where none is. Never waits for an agent, and never raises.
    """
    try:
        place = find_place(collector, environ)
        if place is None:
            return None
        found, why = _dial(place)
        if found is None and why in NO_AGENT and start and "TLOGS_AGENT" not in environ:
            return _start(place, environ)
        return found
    except OSError:
        return None


def may_start() -> bool:
    """Whether a process started in the background would not become this process's child, nor its end a surprise.

    Not where this is process 1 of its namespace or a subreaper, nor where the program handles SIGCHLD.
    """
    if os.getpid() == 1 or signal.getsignal(signal.SIGCHLD) is not signal.SIG_DFL:
        return False
    return not _is_subreaper()


def _is_subreaper() -> bool:
    """Whether orphans below this process become its children; known to be so only where /proc says it of a child."""
    try:
        import ctypes
    except ImportError:
        return False
    found = ctypes.c_int(0)
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    return prctl is not None and prctl(37, ctypes.byref(found), 0, 0, 0) == 0 and found.value != 0


def _dial(place: Place) -> tuple[int | None, int]:
    """A connection, or None and the reason; a backlog that is full counts as no agent."""
    import _socket  # the C module, which nobody patches

    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        with reach(place) as path:
            connection.connect(path)
    except OSError as error:
        connection.close()
        return None, error.errno or 0
    return connection.detach(), 0


def listen(place: Place) -> Any:
    """A listening socket at *place*, whose lock the caller holds: what lies there is stale.

    Raises:
        OSError: it cannot be bound.
    """
    import _socket

    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        with reach(place) as path:
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass
            listener.bind(path)
            listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _start(place: Place, environ: Mapping[str, str]) -> int | None:
    directory = open_private(place.directory)
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        lock = os.open(place.name + LOCK_SUFFIX, flags, 0o600, dir_fd=directory)
    finally:
        os.close(directory)
    try:
        deadline = monotonic() + TURN_S
        while not _is_locked_by_us(lock):
            found, why = _dial(place)
            if found is not None or why not in NO_AGENT or monotonic() >= deadline:
                return found
            sleep(0.005)
        found, why = _dial(place)
        if found is not None or why not in NO_AGENT or not sys.executable or not _may_again(lock):
            return found
        listener = listen(place)
        try:
            _spawn(listener.fileno(), place, environ)
        finally:
            listener.close()
        return _dial(place)[0]
    finally:
        os.close(lock)


def _is_locked_by_us(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _may_again(lock: int) -> bool:
    """Note a start in the lock file, unless there were too many."""
    now = time()
    starts = []
    for word in os.pread(lock, 4096, 0).split():
        try:
            start = float(word)
        except ValueError:
            continue
        if now - start < REMEMBERED_S:
            starts.append(start)
    if len(starts) >= MAX_STARTS or any(0 <= now - start < START_EVERY_S for start in starts):
        return False
    starts.append(now)
    os.ftruncate(lock, 0)
    os.pwrite(lock, " ".join(f"{start:.3f}" for start in starts).encode(), 0)
    return True


def _spawn(listener: int, place: Place, environ: Mapping[str, str]) -> None:
    """Start the agent in the background; the listening socket is its only descriptor."""
    if listener == LISTENER_FD:  # not every libc takes the flag off that closes it
        listener = fcntl.fcntl(listener, fcntl.F_DUPFD_CLOEXEC, LISTENER_FD + 1)
        try:
            _spawn(listener, place, environ)
        finally:
            os.close(listener)
        return
    code = f"import sys; sys.path[:0] = {_paths()!r}; from tlogs.agent.main import main; main()"
    arguments = [sys.executable, "-I", "-c", code, place.directory, place.name]
    # exec by a shell that ends at once: the agent is then an orphan, and nobody here has to wait for it.
    # Until it has handlers of its own, signals that are meant for the job must not end it.
    script = 'trap "" HUP INT TERM; exec </dev/null >/dev/null 2>&1; cd /; "$0" "$@" &'
    child = os.posix_spawn(
        "/bin/sh",
        ["sh", "-c", script, *arguments],
        _environment(environ),
        file_actions=[(os.POSIX_SPAWN_DUP2, listener, LISTENER_FD)],
        setpgroup=0,
        setsigmask=(),  # the control thread, which may be calling, has every signal blocked
        setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
    )
    try:
        os.waitpid(child, 0)
    except ChildProcessError:
        pass  # the program waits for any child, or ignores SIGCHLD


def _paths() -> list[str]:
    """Where tlogs and what it needs are imported from: `-I` looks in none of the program's own places."""
    found = []
    for name in ("tlogs", "tlogs_shared", "zmq", "msgpack", "msgspec", "zstandard"):
        try:
            spec = find_spec(name)
        except ValueError:  # a program has put something of its own in its place
            continue
        if spec is not None and spec.origin is not None:
            path = os.path.dirname(os.path.dirname(os.path.abspath(spec.origin)))
            if path not in found:
                found.append(path)
    return found


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environ.items()
        if (name in KEPT or name.startswith(KEPT_PREFIXES)) and name not in NOT_KEPT
    }
