"""Bringing in the outboxes of processes that died on this host: `tlogs recover`, in a process beside the daemon.

Outboxes come from two sides: the hub names those of streams that it saw end, and the directory of outboxes is searched
for those of processes that never reached their collector. Only file names are looked at here, `<host>-<pid>-<stream>.
outbox`; whose an outbox is, and whether its process is dead, is for `tlogs recover` to find out, which opens it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from tlogs_shared.host import is_running, outbox_owner, outbox_places
from tlogs_shared.storage.layout import OUTBOX_SUFFIX

__all__ = ["Recoverer"]

AGAIN_S: Final = 1.0
MAX_TRIES: Final = 6
"""A failed recovery is retried after 1, 2, 4 … seconds, and after half a minute left to a person."""

PLACES_EVERY_S: Final = 10.0
"""A directory of outboxes that is new is found after this time at the latest; the others are looked into each time."""

AWAITED_TRIES: Final = 3
"""A daemon that is to end waits for this many of them."""


class Recoverer:
    """Runs `tlogs recover`, one at a time; what it could not bring in is tried again."""

    def __init__(self, notice: Path, environ: Mapping[str, str]) -> None:
        self._notice = notice
        self._environ = environ
        self._places: Sequence[Path] = ()
        self._places_due_s = 0.0
        self._found: set[Path] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self._at_work: Sequence[str] = ()
        self._due_s: dict[str, float] = {}  # what is still to be brought in, with when
        self._tries: dict[str, int] = {}

    def want(self, outboxes: Iterable[str]) -> None:
        """Bring in these outboxes, now or after what is under way."""
        for path in outboxes:
            self._due_s.setdefault(path, 0.0)

    def poll(self) -> bool:
        """Begin what is due; return whether something is under way or about to be."""
        if self._process is not None:
            if (status := self._process.poll()) is None:
                return True
            self._process = None
            self._after(failed=status != 0)
        if not self._due_s:
            self.want(self._search())
        due = sorted(path for path, due_s in self._due_s.items() if due_s <= time.monotonic())
        if due:
            self._begin(due)
        return bool(due) or any(self._tries[path] <= AWAITED_TRIES for path in self._due_s)

    def end(self) -> None:
        """End it; what it has not brought in stays where it is."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait()

    def _search(self) -> list[str]:
        """The outboxes whose process has ended, or is another container's, and that were not found before."""
        if time.monotonic() >= self._places_due_s:
            self._places, self._places_due_s = outbox_places(self._environ), time.monotonic() + PLACES_EVERY_S
        found = []
        for path in (path for place in self._places for path in place.glob(f"*{OUTBOX_SUFFIX}")):
            pid = outbox_owner(path.name)
            if path not in self._found and pid is not None and (pid == 0 or not is_running(pid)):
                self._found.add(path)
                found.append(str(path))
        return sorted(found)

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
