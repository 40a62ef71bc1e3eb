"""The records that a full outbox dropped, by level, and the record that reports them."""

from __future__ import annotations

from logging import WARNING
from typing import Final

import msgpack

from tlogs_shared.level_names import level_name

__all__ = ["GAP_BYTES", "Drops"]

GAP_BYTES: Final = 1024
"""No gap record is larger."""

MAX_LEVELS: Final = 16
"""A program that uses more levels than this has the others counted under NOTSET."""


class Drops:
    """Records that were dropped, counted by level: since the stream began, and since the last gap record."""

    __slots__ = ("total", "untold")

    def __init__(self) -> None:
        self.total: dict[int, int] = {}
        self.untold: dict[int, int] = {}

    def count(self, levelno: int) -> None:
        """One more."""
        if levelno not in self.total and len(self.total) >= MAX_LEVELS - 1:
            levelno = 0
        self.total[levelno] = self.total.get(levelno, 0) + 1
        self.untold[levelno] = self.untold.get(levelno, 0) + 1

    def gap(self, ts: int) -> bytes:
        """The record that takes the place of the unreported ones."""
        counts = {level_name(level): count for level, count in sorted(self.untold.items())}
        extra = {"stream": "tlogs", "fields": {"dropped": counts}}
        total = [sum(counts.values())]
        values = (ts, WARNING, "tlogs", "dropped %d records: the outbox was full", total, None, "", 0, "", "", extra)
        return bytes(msgpack.packb(values))
