"""Which process writes an outbox, and whether it is still alive.

Alive is decided by the process, never by a lock or a closed connection: a lock is kept by forked children and lost
with a descriptor that the program closed. Only where the process cannot be seen, from another container, does the
writer's lock decide.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Final

from tlogs.outbox.ring import BOOT_BYTES, Process

__all__ = ["is_alive", "same_container", "this_process"]

_ENDED: Final = frozenset("ZX")
"""States of a process that only waits for its parent to ask how it ended."""


def this_process() -> Process:
    """The process that runs this."""
    pid = os.getpid()
    try:
        _, started = _look(pid) or ("", 0)
    except OSError:  # no descriptor left
        started = 0
    return Process(pid, started, _namespace("pid"), _namespace("mnt"), _boot())


def is_alive(process: Process, is_locked: Callable[[], bool]) -> bool:
    """Return True if this process lives; *is_locked* is asked where that cannot be seen from here."""
    if not can_see(process):
        return is_locked()
    if not os.path.exists("/proc/self/stat"):
        return _takes_signals(process.pid)
    try:
        found = _look(process.pid)
    except OSError:
        return True  # it cannot be seen at present; nothing is taken from it
    return found is not None and found[0] not in _ENDED and process.started in (0, found[1])


def can_see(process: Process) -> bool:
    """Return True if its number means the same process here: the same start of the kernel, the same namespace."""
    return (process.boot, process.pid_namespace) == (_boot(), _namespace("pid"))


def same_container(process: Process) -> bool:
    """Return True if it sees the same files: its paths mean the same here."""
    return process.boot == _boot() and process.mount_namespace == _namespace("mnt")


def _look(pid: int) -> tuple[str, int] | None:
    """State and start time (clock ticks since boot) of a process; None where there is no such process.

    Raises:
        OSError: this process cannot look, for want of a descriptor.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name of the program, in brackets, may hold blanks and brackets.
    values = text.rpartition(")")[2].split()
    return (values[0], int(values[19])) if len(values) > 19 else None


def _takes_signals(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def _namespace(kind: str) -> int:
    # Not remembered: setns and unshare change it.
    try:
        return os.stat(f"/proc/self/ns/{kind}").st_ino
    except OSError:
        return 0


@lru_cache(maxsize=1)
def _boot() -> bytes:
    try:
        return bytes.fromhex(Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", ""))
    except (OSError, ValueError):
        return bytes(BOOT_BYTES)
