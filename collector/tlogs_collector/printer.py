"""The merged stream on standard output: `tlogs tail` in a process of its own, so that no terminal slows the daemon."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["Printer"]


class Printer:
    """The process that prints."""

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
