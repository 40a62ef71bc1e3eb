"""A run at a glance, as `tlogs runs` and `tlogs.runs()` show it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlogs.reading.run import Run, describe
from tlogs.reading.stamp import rfc3339
from tlogs.reading.verify import Verification
from tlogs_shared.origin import Origin
from tlogs_shared.outcome import LIVE, outcome
from tlogs_shared.storage.batch import Header, Kind
from tlogs_shared.storage.position import Position

__all__ = ["RunSummary", "summarize"]


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run at a glance; the times are those of its first and last record, in nanoseconds.

    `outcome` is `live finished failed stopped unknown`, as `tlogs_shared.outcome` tells it; `command` is the script and
    the arguments of its ranks, "" where that is not known. `records` are stored now; `dropped` were left out by full
    outboxes, `removed` were stored and taken out again to save space; `lost` numbers were heard of and are nowhere.
    While the run is live, what is under way is not lost.
    """

    name: str
    path: Path | None
    outcome: str
    command: str
    start_ns: int
    end_ns: int
    ranks: int
    records: int
    dropped: int
    removed: int
    lost: int
    bytes: int

    @property
    def live(self) -> bool:
        """Whether a rank of it may still log."""
        return self.outcome == LIVE

    def asdict(self) -> dict[str, Any]:
        """The keys of `tlogs runs --json`."""
        return {
            "name": self.name,
            "start": rfc3339(self.start_ns),
            "end": None if self.live else rfc3339(self.end_ns),
            "outcome": self.outcome,
            "command": self.command or None,
            "ranks": self.ranks,
            "records": self.records,
            "dropped": self.dropped,
            "lost": self.lost,
            "bytes": self.bytes,
        }


def summarize(run: Run) -> RunSummary:
    """The run at a glance, from the headers of its frames.

    Raises:
        StoreError: the run cannot be read.
    """
    counted = Verification()
    described: dict[bytes, list[tuple[Header, Position]]] = {}
    spans: dict[bytes, tuple[int, int]] = {}
    for header, position in run.frames():
        counted.count(header)
        stream = header.stream
        if header.kind is Kind.STREAM:
            described.setdefault(stream, []).append((header, position))
        else:
            first, last = spans.get(stream, (header.first_ts, header.last_ts))
            spans[stream] = min(first, header.first_ts), max(last, header.last_ts)
    streams = describe(run, described)
    live, removed = run.is_live(), run.removed()
    ended = [(stream, info) for stream, info in streams.items() if info.end is not None or not live]
    never_came = sum(max(info.head - counted.watermarks.get(stream, 0), 0) for stream, info in ended)
    times = [streams[stream].corrected(ts) for stream, span in spans.items() if stream in streams for ts in span]
    times += [info.since_ns for info in streams.values() if info.end is not None and info.since_ns]
    start = min(times, default=run.created_ns)
    origins = [info.origin for info in streams.values()]
    return RunSummary(
        name=run.name,
        path=run.path,
        outcome=outcome(streams.values(), live=live),
        command=_command(origins),
        start_ns=start,
        end_ns=max(times, default=start),
        ranks=len({origin.rank for origin in origins if origin.rank is not None and origin.helper is None}),
        records=counted.records,
        dropped=sum(sum(info.dropped.values()) for info in streams.values()),
        removed=removed,
        lost=max(counted.missing - removed, 0) + never_came,
        bytes=run.size(),
    )


def _command(origins: Iterable[Origin]) -> str:
    """What the ranks run; where there are none, or they do not say, what another process of the job does."""
    said = [origin for origin in origins if origin.command and origin.helper is None]
    ranks = sorted((origin for origin in said if origin.rank is not None), key=lambda origin: origin.rank or 0)
    return (ranks or said)[0].command if said else ""
