"""The two commands that a daemon runs beside itself: the reader that prints its stream, and recovery."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from tlogs_collector.orphans import Orphans

__all__ = ["Printer", "Recovery"]

AGAIN_S: Final = 1.0
MAX_TRIES: Final = 6
"""What could not be brought in is tried again after 1, 2, 4 … seconds, and after half a minute left to a person."""

AWAITED_TRIES: Final = 3
"""A daemon that is to end waits for so many of them."""


class Printer:
    """The merged stream on standard output: `tlogs tail`, in a process of its own, so that no terminal slows us."""

    def __init__(self, notice: Path) -> None:
        command = [sys.executable, "-m", "tlogs", "tail", "--collector", str(notice), "--run", "*", "-n", "all"]
        # It ends with the daemon however that ends: the next one has a printer of its own.
        command += ["--pid", str(os.getpid())]
        # A session of its own: the terminal's Ctrl-C is for the daemon, which then still has records to show.
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

    def is_running(self) -> bool:
        """Whether it still prints, or waits for news."""
        return self._process.poll() is None

    def end(self) -> None:
        """End it, whatever it has not printed."""
        if self.is_running():
            self._process.terminate()
            self._process.wait()


class Recovery:
    """`tlogs recover`, one at a time; what it could not bring in is tried again."""

    def __init__(self, notice: Path) -> None:
        self._notice = notice
        self._process: subprocess.Popen[bytes] | None = None
        self._at_work: Sequence[str] = ()
        self._due_s: dict[str, float] = {}  # what is still to be brought in, with when
        self._tries: dict[str, int] = {}
        self._orphans = Orphans(os.environ)

    def want(self, outboxes: Iterable[str]) -> None:
        """Bring in these outboxes, now or after what is under way."""
        for path in outboxes:
            self._due_s.setdefault(path, 0.0)

    def is_running(self) -> bool:
        """Whether something is under way or about to be; what is due is begun."""
        if self._process is not None:
            if (status := self._process.poll()) is None:
                return True
            self._process = None
            self._after(failed=status != 0)
        if not self._due_s:
            self.want(self._orphans.look())
        due = sorted(path for path, due_s in self._due_s.items() if due_s <= time.monotonic())
        if due:
            self._begin(due)
        return bool(due) or any(self._tries[path] <= AWAITED_TRIES for path in self._due_s)

    def _begin(self, paths: Sequence[str]) -> None:
        self._at_work = paths
        for path in paths:
            del self._due_s[path]
            self._tries[path] = self._tries.get(path, 0) + 1
        command = [sys.executable, "-m", "tlogs", "recover", "--quiet", "--collector", str(self._notice), "--", *paths]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )

    def _after(self, *, failed: bool) -> None:
        for path in self._at_work:
            tries = self._tries.pop(path)
            if failed and tries < MAX_TRIES and os.path.exists(path):
                self._tries[path] = tries
                self._due_s[path] = time.monotonic() + AGAIN_S * 2 ** (tries - 1)

    def end(self) -> None:
        """End it; what it has not brought in stays where it is."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait()
