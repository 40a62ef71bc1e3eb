"""The agents of the torture's workers: they start as the workers ask for them, so they are found, not kept."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

__all__ = ["Agents"]

TITLE: Final = "tlogs-agent"
START: Final = (
    "import os, tlogs.access.agent_start as a; a.connect(os.environ['TLOGS_COLLECTOR'], os.environ, start=True)"
)
AT_ONCE: Final = 3


class Agents:
    """Every agent that serves workers of one scene, whose directory of sockets nobody else uses."""

    def __init__(self, sockets: Path, chance: random.Random) -> None:
        self._sockets = sockets
        self._random = chance
        self._starters: list[subprocess.Popen[bytes]] = []

    def living(self) -> list[int]:
        """Their processes."""
        found = []
        for directory in Path("/proc").glob("[0-9]*"):
            try:
                title = (directory / "comm").read_text().strip()
                arguments = (directory / "cmdline").read_bytes().split(b"\0") if title == TITLE else []
            except OSError:
                continue  # it has ended meanwhile
            if os.fsencode(self._sockets) in arguments:
                found.append(int(directory.name))
        return sorted(found)

    def kill(self) -> bool:
        """As kill -9 does; the next worker that notices starts another."""
        self._forgive()
        return self._signal(signal.SIGKILL) is not None

    def stop(self) -> int | None:
        """As SIGSTOP does; the process that was stopped."""
        return self._signal(signal.SIGSTOP)

    def go_on(self, pid: int) -> None:
        """Let one go on that was stopped, unless it was killed meanwhile."""
        if pid in self.living():
            os.kill(pid, signal.SIGCONT)

    def take_socket(self) -> bool:
        """Take a socket away, as a logout does: its agent serves on, and another starts beside it."""
        sockets = [path for path in self._sockets.glob("a-*") if path.is_socket()]
        if not sockets:
            return False
        self._random.choice(sockets).unlink()
        self._forgive()
        return True

    def start_at_once(self, environ: Mapping[str, str]) -> None:
        """Have several processes start the agent of a collector at the same moment, beside the workers that do."""
        self._forgive()
        self._starters = [one for one in self._starters if one.poll() is None]
        for _ in range(AT_ONCE):
            self._starters.append(subprocess.Popen([sys.executable, "-c", START], env=dict(environ)))

    def close(self) -> None:
        """Leave none behind."""
        for starter in self._starters:
            starter.kill()
            starter.wait()
        for pid in self.living():
            os.kill(pid, signal.SIGKILL)

    def _signal(self, number: int) -> int | None:
        living = self.living()
        if not living:
            return None
        pid = self._random.choice(living)
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return None
        return pid

    def _forgive(self) -> None:
        """As if an hour had passed: a host starts only so many in one."""
        for lock in self._sockets.glob("a-*.lock"):
            lock.write_bytes(b"")
