"""A place in a run, and the merge of what was found from there on."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from tlogs.reading.entry import Entry
from tlogs.reading.filters import Filter, FilterOptions, make_filter
from tlogs.reading.merge import Merge
from tlogs.reading.run import Run, describe, end_of
from tlogs_shared.origin import StreamInfo
from tlogs_shared.storage.batch import Header, Kind
from tlogs_shared.storage.position import START, Position

__all__ = ["Cursor", "filter_for"]


class Cursor:
    """One reading of one run. What was stored before *begin* is left out."""

    def __init__(self, run: Run, choice: Filter | None = None, begin: Position = START) -> None:
        self.merge = Merge(run.payload, choice, run.name)
        self._run = run
        self._begin = begin
        self._last = START
        self._streams: dict[bytes, StreamInfo] = {}

    def refresh(self) -> None:
        """Note the frames that have come since the last time.

        Raises:
            StoreError: the run cannot be read.
        """
        described: dict[bytes, list[tuple[Header, Position]]] = {}
        known = self._last
        for header, position in self._run.frames(known):
            if position == known:
                continue
            self._last = position
            if header.kind is Kind.STREAM:  # also before *begin*
                described.setdefault(header.stream, []).append((header, position))
            elif position >= self._begin:
                self.merge.add(header, position)
        if described:
            # The last stream frame holds, also for the records before it.
            self._streams.update(describe(self._run, described))
            self.merge.label(self._streams)

    @property
    def streams(self) -> Mapping[bytes, StreamInfo]:
        """Every stream's latest description."""
        return self._streams

    def whole(self) -> Iterator[list[Entry]]:
        """All that is stored now, in order."""
        self.refresh()
        return self.merge.take()

    def last(self, count: int) -> list[Entry]:
        """The last *count* of what is stored now, in order."""
        self.refresh()
        return self.merge.last(count)

    @property
    def notes(self) -> list[str]:
        """Notes for the reader, beside the records."""
        notes = []
        missing = self.merge.missing
        if missing:
            count = sum(end - first for holes in missing.values() for first, end in holes)
            who = sorted({speaker.label for speaker in missing})
            more = f" and {len(who) - 3} more" if len(who) > 3 else ""
            notes.append(
                f"{count} records of {', '.join(who[:3])}{more} are not in the store (lost, damaged or removed)"
            )
        if self.merge.damaged:
            notes.append(f"{self.merge.damaged} records are in damaged batches that cannot be read")
        return notes


def filter_for(run: Run, options: FilterOptions) -> Filter:
    """The filter that *options* describe for this run: a time of day in them is one near its end.

    Raises:
        TypeError: an unknown filter name.
        ConfigError: a value cannot be used.
    """
    return make_filter(options, time.time_ns(), lambda: end_of(run))
