"""The two commands that a daemon runs beside itself: the reader that prints its stream, and recovery."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tlogs_collector.orphans import Orphans

__all__ = ["Printer", "Recovery"]

ENDS_S: Final = 10.0
"""At the end the printer has so long to catch up; a pager that nobody reads must not keep the daemon."""


class Printer:
    """The merged stream on standard output: `tlogs tail`, in a process of its own, so that no terminal slows us."""

    def __init__(self, notice: Path) -> None:
        command = [sys.executable, "-m", "tlogs", "tail", "--collector", str(notice), "--run", "*", "-n", "0"]
        # A session of its own: the terminal's Ctrl-C is for the daemon, which then still has records to show.
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

    def finish(self) -> None:
        """Let it print what is left."""
        try:
            self._process.wait(ENDS_S)
        except subprocess.TimeoutExpired:
            self._process.terminate()
            self._process.wait()


class Recovery:
    """`tlogs recover`, one at a time."""

    def __init__(self, notice: Path) -> None:
        self._notice = notice
        self._process: subprocess.Popen[bytes] | None = None
        self._next: set[str] | None = None
        self._orphans = Orphans(os.environ)

    def start(self, outboxes: Sequence[str] = ()) -> None:
        """Bring in these outboxes, or all that belong to this collector; where one is at work, after it."""
        if self._process is not None and self._process.poll() is None:
            self._next = (self._next or set()) | set(outboxes)
            return
        command = [sys.executable, "-m", "tlogs", "recover", "--quiet", "--collector", str(self._notice), *outboxes]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )

    def look(self) -> None:
        """Bring in the outboxes of processes that ended before they ever reached us."""
        if found := self._orphans.look():
            self.start(found)

    def is_running(self) -> bool:
        """Whether one is at work; begins the next round where one was asked for meanwhile."""
        if self._process is not None and self._process.poll() is None:
            return True
        if self._next is None:
            return False
        outboxes, self._next = self._next, None
        self.start(sorted(outboxes))
        return True

    def finish(self) -> None:
        """End it; what it has not brought in stays where it is."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait()
