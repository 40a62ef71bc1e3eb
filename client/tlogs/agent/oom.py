"""Whether it was the kernel that killed a process for want of memory: a counter of its memory cgroup says so.

The counter belongs to all processes of the cgroup. So it is read again and again while they live, and one that was
killed meanwhile claims an increase: a `kill -9` an hour after somebody else's end has none to claim.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

__all__ = ["OomLedger", "find_counter"]

ROOT: Final = Path("/sys/fs/cgroup")
MACHINE: Final = Path("/proc/vmstat")
"""Counts for the whole machine, where a process's own cgroup cannot be seen."""

NAME: Final = "oom_kill"


def find_counter(pid: int, root: Path = ROOT) -> Path:
    """The file that counts for process *pid*."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return MACHINE
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        mount, name = (root / "memory", "memory.oom_control") if controllers else (root, "memory.events")
        # Seen from inside a container the path may begin above what is mounted: then the mount is its cgroup.
        for found in (mount / path.lstrip("/") / name, mount / name):
            if read_counter(found) is not None:
                return found
    return MACHINE


def read_counter(path: Path) -> int | None:
    """How often the kernel has killed there; None where *path* does not say."""
    try:
        for line in path.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == NAME:
                return int(value)
    except (OSError, ValueError):
        pass
    return None


class OomLedger:
    """The counters of the processes that are watched; `follow` one before its first end."""

    def __init__(self) -> None:
        self._known: dict[Path, int] = {}

    def follow(self, counter: Path) -> None:
        """Note where *counter* stands."""
        if counter not in self._known and (found := read_counter(counter)) is not None:
            self._known[counter] = found

    def refresh(self) -> None:
        """Note where all counters stand: what has increased since the last time is nobody's any more."""
        for counter in list(self._known):
            found = read_counter(counter)
            if found is None:
                del self._known[counter]
            else:
                self._known[counter] = found

    def claim(self, counter: Path) -> bool:
        """Return True if a process of this counter that was killed just now was killed for want of memory."""
        known, found = self._known.get(counter), read_counter(counter)
        if known is None or found is None or found <= known:
            return False
        self._known[counter] = known + 1
        return True
