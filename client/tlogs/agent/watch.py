"""A process that is no child of ours: whether it lives, what it is doing, and the status that it ended with.

Theory of operation
-------------------
A pidfd becomes readable at the end of the process, whoever its parent is. What it ended with is the parent's to know,
but two places tell others: while the process waits for its parent as a zombie, the last field of its line in /proc;
and once the parent has asked, its pidfd (Linux 6.15 and later). Each has nothing while the other has something, so both
are asked. A status of 0 from /proc says little: it is also what a reader gets who may not know.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tlogs.agent.ends import Status

__all__ = ["ALL_WAYS", "INFO", "PIDFD", "ZOMBIE", "Vital", "Watch"]

PIDFD: Final = "pidfd"
ZOMBIE: Final = "zombie"
INFO: Final = "info"
ALL_WAYS: Final = frozenset({PIDFD, ZOMBIE, INFO})
"""What this module may use of the kernel; a test takes some away, to be as an older kernel is."""

GET_INFO: Final = 0xC040FF0B
"""PIDFD_GET_INFO: an ioctl that fills 64 bytes, first a mask, last the status."""

INFO_EXIT: Final = 1 << 3
INFO_BYTES: Final = 64
STATUS_OFFSET: Final = 60

STATES: Final = {"D": "blocked", "T": "stopped", "t": "stopped"}
TICK_MS: Final = 1000 // os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Vital:
    """What a live process is doing: `running`, `blocked` in the kernel or `stopped`; and the CPU it has used."""

    state: str
    cpu_ms: int


class Watch:
    """A process to watch, known by its number and, where *started* is not 0, by when it began (ticks since boot).

    Where the system has no pidfds, `fileno` is None and `has_ended` has to be asked again and again.
    """

    def __init__(self, pid: int, started: int, *, pidfd: int | None = None, ways: frozenset[str] = ALL_WAYS) -> None:
        """Watch a process; *pidfd* is one of it that is the watch's from here on, where there is one already."""
        self.pid = pid
        self._started = started
        self._ways = ways
        self._ended = False
        self._fd = pidfd
        if pidfd is not None and PIDFD in ways:
            return  # also of a process that was reaped before we looked: it is not mistaken for another
        self.close()
        if PIDFD in ways and hasattr(os, "pidfd_open"):
            try:
                self._fd = os.pidfd_open(pid)
            except ProcessLookupError:
                self._ended = True
            except OSError:
                pass  # an old kernel, or no descriptor left
        # Only now: had the number been given to another process before, the one that was meant has ended.
        if (found := self._look()) is None or started not in (0, found.started):
            self._ended = True

    @property
    def fileno(self) -> int | None:
        """A descriptor that is readable once the process has ended; None where there is none."""
        return self._fd

    def has_ended(self) -> bool:
        """Return True once the process has ended, whether or not its parent has noticed."""
        if not self._ended and self._fd is not None:
            poll = select.poll()
            poll.register(self._fd, select.POLLIN)
            self._ended = bool(poll.poll(0))
        elif not self._ended:
            found = self._look()
            self._ended = found is None or found.state in "ZX" or self._started not in (0, found.started)
        return self._ended

    def status(self) -> Status | None:
        """What the process ended with; None where that is not known here, or not yet."""
        unsure = None
        if ZOMBIE in self._ways:
            found = self._look()
            if found is not None and found.state in "ZX" and self._started in (0, found.started):
                if found.status:
                    return Status.from_wait(found.status)
                unsure = Status(0, None, is_sure=False)
        if INFO in self._ways and self._fd is not None:
            status = _exit_info(self._fd)
            if status is not None:
                return Status.from_wait(status)
        return unsure

    def vital(self) -> Vital | None:
        """What it is doing now; None once it has ended, or where that cannot be seen."""
        found = None if self._ended else self._look()
        return None if found is None else Vital(STATES.get(found.state, "running"), found.cpu_ms)

    def close(self) -> None:
        """Let go of the descriptor."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _look(self) -> _Stat | None:
        return read_stat(self.pid)


@dataclass(frozen=True, slots=True)
class _Stat:
    state: str
    cpu_ms: int
    started: int
    status: int


def read_stat(pid: int) -> _Stat | None:
    """What /proc says of a process; None where there is no such process."""
    try:
        # The name of the program, in brackets, may hold blanks and brackets.
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        values = text.rpartition(")")[2].split()
    except OSError:
        return None
    if len(values) < 50:
        return None
    return _Stat(values[0], (int(values[11]) + int(values[12])) * TICK_MS, int(values[19]), int(values[49]))


def _exit_info(pidfd: int) -> int | None:
    """What the pidfd of a process that its parent has reaped tells of its end."""
    data = bytearray(INFO_BYTES)
    struct.pack_into("=Q", data, 0, INFO_EXIT)
    try:
        fcntl.ioctl(pidfd, GET_INFO, data, True)
    except OSError:
        return None  # a kernel that has no such thing
    if not struct.unpack_from("=Q", data)[0] & INFO_EXIT:
        return None
    status: int = struct.unpack_from("=i", data, STATUS_OFFSET)[0]
    return status
