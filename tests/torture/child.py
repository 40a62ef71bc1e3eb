"""One worker process, as those who torture it see it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ledger import Ledger
from oracle import Logged, read_outbox

__all__ = ["Worker"]

SCRIPT: Final = Path(__file__).resolve().with_name("worker.py")


class Worker:
    """One worker process, with its ledger and, once it is there, a look into its outbox."""

    def __init__(
        self, root: Path, serial: int, rank: int, *, threads: int, outbox: str, rate: float, environ: Mapping[str, str]
    ) -> None:
        self.serial, self.rank, self.threads, self.outbox = serial, rank, threads, outbox
        self.collector = environ["TLOGS_COLLECTOR"]
        self.is_stopped = False
        self.ended_itself = False
        self.acknowledged = 0
        self.dropped = 0
        self.stream = b""
        self._outboxes = Path(environ["TLOGS_OUTBOX_DIR"])
        self._fd = -1
        path = root / f"worker{serial}.ledger"
        self.ledger = Ledger(path, create=True)
        given = {"TLOGS_OUTBOX_BYTES": outbox, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        command = [sys.executable, str(SCRIPT), str(path), str(serial), str(threads), str(rate)]
        with (root / f"worker{serial}.err").open("wb") as err:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=err, stderr=err, env={**environ, **given}
            )

    def look(self) -> None:
        """Read from the outbox how far it is acknowledged; an open descriptor outlives the file's name."""
        if self._fd < 0:
            for path in self._outboxes.glob(f"*-{self.process.pid}.*.outbox"):
                try:
                    self._fd = os.open(path, os.O_RDONLY)
                except FileNotFoundError:
                    pass  # brought in and deleted already
        if self._fd >= 0 and (found := read_outbox(os.pread(self._fd, 4096, 0))) is not None:
            self.stream, self.acknowledged, drops = found
            self.dropped = sum(drops.values())

    @property
    def backlog(self) -> int:
        """Calls that have returned and are neither acknowledged nor dropped."""
        return max(self.ledger.total() - self.dropped - self.acknowledged, 0)

    def tell(self, word: str) -> None:
        """Say how it is to end."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(word.encode() + b"\n")
            self.process.stdin.close()
        except BrokenPipeError:
            pass  # it has ended

    def logged(self) -> Logged:
        """What its ledger says."""
        returned = [self.ledger.returned(thread) for thread in range(self.threads)]
        return Logged(self.serial, returned, self.ended_itself)

    def close(self) -> None:
        """Leave nothing of it behind."""
        self.process.kill()
        self.process.wait()
        if self.process.stdin is not None:
            try:
                self.process.stdin.close()
            except BrokenPipeError:
                pass
        if self._fd >= 0:
            os.close(self._fd)
