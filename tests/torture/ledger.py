"""A worker's own account of its logging calls: a small mapped file that outlives it, however it dies."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Final

__all__ = ["MAX_THREADS", "Ledger"]

MAX_THREADS: Final = 4
_READY: Final = 0
_FIRST: Final = 8
_BYTES: Final = 4096


class Ledger:
    """For each thread of a worker the number of its logging calls that have returned."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        if create:
            path.write_bytes(bytes(_BYTES))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _BYTES)
        self.words = memoryview(self._map).cast("Q")
        """Aligned numbers of eight bytes: each is stored by one instruction."""

    @staticmethod
    def slot(thread: int) -> int:
        """Where in `words` a thread counts."""
        return _FIRST + thread

    def returned(self, thread: int) -> int:
        """How many calls of a thread have returned: those numbered below."""
        return self.words[self.slot(thread)]

    def total(self) -> int:
        """The calls of all threads."""
        return sum(self.words[_FIRST : _FIRST + MAX_THREADS])

    @property
    def is_ready(self) -> bool:
        """Whether the worker has begun to log."""
        return bool(self.words[_READY])

    def ready(self) -> None:
        """The worker begins to log."""
        self.words[_READY] = 1
