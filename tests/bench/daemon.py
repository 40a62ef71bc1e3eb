"""A collector to measure: a real process in a temporary directory, on a port of its own, that leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tlogs.access.discovery import Address, find_address

__all__ = ["Daemon"]

END_S = 20.0


class Daemon:
    """`tlogs-collector --quiet`, started; a context manager that ends it.

    `environ` is for processes that log to it: it names the collector, and keeps outboxes and the list of live
    collectors in the temporary directory too.
    """

    def __init__(self) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="tlogs-bench-")
        root = Path(self._temporary.name)
        self.directory = root / "runs"
        self.outboxes = root / "outboxes"
        self.outboxes.mkdir(mode=0o700)
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("TLOGS_", "TORCH_LOGS"))}
        self.environ = {
            **clean,
            "XDG_STATE_HOME": str(root / "state"),
            "TLOGS_OUTBOX_DIR": str(self.outboxes),
            "TLOGS_COLLECTOR": str(self.directory),
        }
        command = [sys.executable, "-m", "tlogs_collector", "--quiet", "--dir", str(self.directory)]
        self._process = subprocess.Popen(
            [*command, "--listen", "tcp://127.0.0.1:0"], stderr=subprocess.PIPE, text=True, env=self.environ
        )
        assert self._process.stderr is not None
        line = self._process.stderr.readline()
        if "listening on" not in line:
            self._process.kill()
            self._temporary.cleanup()
            raise RuntimeError(f"the collector did not start: {line}{self._process.stderr.read()}")
        self.pid = self._process.pid

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._process.poll() is None:
            self.end()
        self._temporary.cleanup()

    @property
    def address(self) -> Address:
        """How to reach it."""
        found = find_address(str(self.directory), self.environ)
        assert found is not None
        return found

    def end(self) -> int:
        """End it; the number of records that it says it has stored.

        Raises:
            RuntimeError: it dropped or lost records: what was measured is worth nothing.
        """
        for _ in range(2):  # the second does not wait for ranks that are still there
            self._process.send_signal(signal.SIGTERM)
        try:
            _, said = self._process.communicate(timeout=END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        lines = re.findall(r"(\d+) records?, (\d+) dropped, (\d+) lost", said)
        if any(int(dropped) or int(lost) for _, dropped, lost in lines):
            raise RuntimeError(f"the collector has not got everything:\n{said}")
        return sum(int(stored) for stored, _, _ in lines)
