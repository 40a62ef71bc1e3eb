"""The agent as a process: started in the background by whoever needs it, or in the foreground by a person.

In the background it got its listening socket from whoever started it, ignores signals while workers are registered
(systemd and scancel send them to every process of a job), and leaves once there is nothing to do. It leaves under the
same lock under which it was started, so that nobody connects to a socket that is being taken away.
"""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import socket
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Final

from tlogs.access.agent_place import LOCK_SUFFIX, Place, reach
from tlogs.access.agent_start import LISTENER_FD, listen
from tlogs.agent.agent import Agent
from tlogs_shared.errors import ConfigError
from tlogs_shared.unix_socket import open_private

__all__ = ["main", "serve"]

TITLE: Final = "tlogs-agent"
MAX_DESCRIPTORS: Final = 65536
IDLE_S: Final = 5.0
"""An agent with nothing to do stays for so long: the next worker need not start another."""

LINGER_S: Final = 60.0
"""What dead workers left waits for so long for a collector; afterwards it stays in the outboxes."""

DRAIN_S: Final = 5.0
"""The same once the agent was told to end."""

ENDING: Final = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)


def main() -> None:
    """Be the agent whose listening socket is `LISTENER_FD`; the arguments are its directory and its name."""
    place = Place(sys.argv[1], sys.argv[2])
    os.closerange(LISTENER_FD + 1, _highest_descriptor() + 1)
    os.set_inheritable(LISTENER_FD, False)
    try:
        os.setsid()
    except PermissionError:
        pass  # it leads its process group already
    os.umask(0o077)
    listener = socket.socket(fileno=LISTENER_FD)
    listener.setblocking(False)
    _Process(place, listener, is_foreground=False).run()


def serve(place: Place) -> None:
    """Be an agent in the foreground, until a signal ends it.

    Raises:
        ConfigError: there is one at *place* already, or it cannot be used.
    """
    try:
        with reach(place) as path:
            probe = socket.socket(socket.AF_UNIX)
            try:
                probe.connect(path)
            except (FileNotFoundError, ConnectionRefusedError):
                pass
            else:
                raise ConfigError(f"{place.path}: another agent listens there")
            finally:
                probe.close()
        listener = socket.socket(fileno=listen(place).detach())
    except OSError as error:
        raise ConfigError(f"{place.path}: {error.strerror or error}") from None
    listener.setblocking(False)
    sys.stderr.write(f"tlogs-agent: listening on {place.path}\n")
    _Process(place, listener, is_foreground=True).run()


class _Process:
    def __init__(self, place: Place, listener: socket.socket, *, is_foreground: bool) -> None:
        self._place = place
        self._listener = listener
        self._is_foreground = is_foreground
        self._asked_s: float | None = None
        self._wake_out, wake_in = os.pipe()
        os.set_blocking(wake_in, False)
        signal.set_wakeup_fd(wake_in, warn_on_full_buffer=False)
        for number in ENDING:
            signal.signal(number, self._asked)
        self._agent = Agent(dict(os.environ), listener)
        self._agent.wakes.append(self._wake_out)
        self._busy_s = self._worker_s = time.monotonic()

    def _asked(self, number: int, frame: FrameType | None) -> None:
        if self._asked_s is None:
            self._asked_s = time.monotonic()

    def run(self) -> None:
        _set_up()
        while True:
            self._agent.turn(1.0)
            if self._may_leave(time.monotonic()) and self._leave():
                break
        self._agent.close()

    def _may_leave(self, now_s: float) -> bool:
        agent = self._agent
        if agent.has_workers:
            self._worker_s = now_s
        if not agent.is_idle:
            self._busy_s = now_s
        if self._asked_s is not None:
            if self._is_foreground:
                if agent.is_sent:
                    return True
                return now_s - self._asked_s >= DRAIN_S
            if not agent.has_workers:
                return agent.is_idle or now_s - max(self._worker_s, self._asked_s) >= DRAIN_S
            return False
        if self._is_foreground:
            return False
        return now_s - self._busy_s >= IDLE_S or now_s - self._worker_s >= LINGER_S

    def _leave(self) -> bool:
        """Take the socket away, unless somebody has just connected, or is about to start an agent."""
        try:
            directory = open_private(self._place.directory)
        except OSError:
            return True  # it is gone, and the socket with it
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            lock = os.open(self._place.name + LOCK_SUFFIX, flags, 0o600, dir_fd=directory)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not self._is_foreground and self._agent.has_callers():
                    return False
                if _is_at(self._listener, directory, self._place.name):
                    os.unlink(self._place.name, dir_fd=directory)
                os.ftruncate(lock, 0)  # it ends as it should: the next one may be started at once
            finally:
                os.close(lock)
        except BlockingIOError:
            return False
        except OSError:
            pass  # a socket that cannot be taken away is found to be stale
        finally:
            os.close(directory)
        self._listener.close()
        return True


def _is_at(listener: socket.socket, directory: int, name: str) -> bool:
    """Return True if *name* still leads to our socket: another agent may listen there by now."""
    probe = socket.socket(socket.AF_UNIX)
    try:
        probe.setblocking(False)
        probe.connect(f"/proc/self/fd/{directory}/{name}")
        # Ours is in our backlog now; nobody else's is, as long as we hold the lock.
        connection, _ = listener.accept()
        connection.close()
    except OSError:
        return False
    finally:
        probe.close()
    return True


def _set_up() -> None:
    """Take what the process needs, and no more than it should."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    except (OSError, ValueError):
        pass
    if hasattr(os, "sched_setaffinity"):
        try:
            # A rank may be bound to one processor; the kernel leaves out those that are not in our cpuset.
            os.sched_setaffinity(0, range(os.cpu_count() or 1))
        except OSError:
            pass
    try:
        Path("/proc/self/comm").write_text(TITLE)
    except OSError:
        pass


def _highest_descriptor() -> int:
    try:
        return max(int(name) for name in os.listdir("/proc/self/fd"))
    except (OSError, ValueError):
        return 1023
