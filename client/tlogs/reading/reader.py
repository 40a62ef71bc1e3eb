"""Reading runs: which one, what of it, in which order, and on while it grows."""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tlogs.reading.archive import RunArchive, created_ns, find_runs
from tlogs.reading.entry import Entry
from tlogs.reading.filters import STREAMS, Filter, parse_level, parse_moment, parse_pattern
from tlogs.reading.merge import Merge
from tlogs.reading.record import Record, record_of
from tlogs.reading.source import Source, after
from tlogs.reading.stamp import rfc3339
from tlogs_shared.errors import ConfigError, MessageError, StoreError
from tlogs_shared.origin import StreamInfo
from tlogs_shared.protocol.messages import News
from tlogs_shared.rankset import RankSet
from tlogs_shared.storage.batch import Header, Kind
from tlogs_shared.storage.position import START, Position
from tlogs_shared.storage.segment import unpack_stream

__all__ = [
    "Following",
    "Reading",
    "RunSummary",
    "choose_run",
    "directory_of_runs",
    "make_filter",
    "read",
    "runs",
    "summary",
]

DEFAULT_DIRECTORY: Final = "tlogs-runs"
_FOR_EVER_NS: Final = 2**63 - 1
_HOLD_S: Final = 2.0
"""A rank that has stopped keeps the others' records back no longer than this."""


class Reading:
    """One reading of one run: a cursor in it, and the merge of what was found from *begin* on."""

    def __init__(self, source: Source, choice: Filter | None = None, begin: Position = START) -> None:
        self._source = source
        self._begin = begin
        self.merge = Merge(source.payload, choice, source.name)
        self.position = START
        self._streams: dict[bytes, StreamInfo] = {}

    def refresh(self) -> None:
        """Note the frames that have come since the last time.

        Raises:
            StoreError: the run cannot be read.
        """
        described: dict[bytes, tuple[Header, Position]] = {}
        for header, position in self._source.frames(self.position):
            self.position = after(header, position)
            if header.kind is Kind.BATCH:
                if position >= self._begin:
                    self.merge.add(header, position)
            else:  # what is known of a stream may stand before that
                described[header.stream] = header, position
        # Of all that was said of a stream the last holds, also for what came before it.
        for stream, (header, position) in described.items():
            try:
                self._streams[stream] = unpack_stream(header, self._source.payload(header, position))
            except (MessageError, StoreError):
                continue  # an older description still serves
        if described:
            self.merge.label(self._streams)

    @property
    def streams(self) -> Mapping[bytes, StreamInfo]:
        """What is known of every stream by now."""
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
        """What a reader should know beside the records."""
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
            notes.append(f"{self.merge.damaged} records stand in damaged batches that cannot be read")
        return notes


class Following:
    """A run that is read while it grows.

    A record waits until nothing older is still to come, which the collector's news say, and no longer than *hold_s*:
    a rank that has stopped must not keep the others' records back. Entries come in lists, each with the corrected
    time up to which the order is final (None: all of it).
    """

    def __init__(self, reading: Reading, hold_s: float = _HOLD_S, clock: Callable[[], float] = time.monotonic) -> None:
        self.ended = False
        self._reading = reading
        self._hold_s = hold_s
        self._clock = clock
        self._horizon = 0
        self._seen: deque[tuple[float, int]] = deque()

    @property
    def wait_s(self) -> float:
        """How long nothing need be done unless there are news."""
        if not self._seen:
            return 1.0
        return min(max(self._seen[0][0] + self._hold_s - self._clock(), 0.0), 1.0)

    def begin(self, count: int, news: News | None) -> list[Entry]:
        """The last *count* records of what is stored already."""
        if news is not None:
            self._horizon = news.horizon_ns
        self._reading.refresh()
        return self._reading.merge.last(count, self._horizon or None)

    def step(self, news: News | None) -> Iterator[tuple[list[Entry], int | None]]:
        """What can be shown now; *news* came since the last step."""
        reading, now = self._reading, self._clock()
        if news is not None:
            self._horizon = max(self._horizon, news.horizon_ns)
            self.ended = not news.live or news.closing
            if not news.segment or Position(news.segment, news.offset) > reading.position:
                reading.refresh()
        if self.ended:
            yield from self.close()
            return
        newest = reading.merge.newest
        if newest > self._horizon and (not self._seen or newest > self._seen[-1][1]):
            self._seen.append((now, newest))
        while self._seen and (self._seen[0][1] <= self._horizon or self._seen[0][0] + self._hold_s <= now):
            self._horizon = max(self._horizon, self._seen.popleft()[1])
        yield from ((entries, self._horizon) for entries in reading.merge.take(self._horizon))
        yield [], self._horizon

    def close(self) -> Iterator[tuple[list[Entry], int | None]]:
        """All that is left."""
        self._seen.clear()
        self._reading.refresh()
        yield from ((entries, None) for entries in self._reading.merge.take())
        yield [], _FOR_EVER_NS


def directory_of_runs(environ: Mapping[str, str] = os.environ) -> Path:
    """Where runs are, unless told: TLOGS_DIR, else `./tlogs-runs`."""
    return Path(environ.get("TLOGS_DIR") or DEFAULT_DIRECTORY)


def listed(directory: Path) -> list[RunArchive]:
    """The runs in *directory*, live ones first, then newest first; none where the directory is not there."""
    if not directory.is_dir():
        return []
    found = find_runs(directory)
    found.reverse()
    return sorted(found, key=lambda run: not run.is_live())


_LATEST: Final = re.compile(r"latest(?:~(\d{1,6}))?", re.ASCII)


def choose_run(text: str, directory: Path) -> RunArchive:
    """The run that *text* means: a name, the beginning of one name, a path, `latest`, or `latest~1`.

    `latest` is the first that `tlogs runs` lists, `latest~1` the second.

    Raises:
        ConfigError: there is no such run, or there are several.
        StoreError: the directory cannot be read.
    """
    if os.sep in text or text in (".", ".."):
        path = Path(text)
        if not path.is_dir():
            raise ConfigError(f"no run at {text}: expected the directory of a run")
        found = listed(path) if not _is_run(path) else [RunArchive(path)]
        if len(found) != 1:
            raise ConfigError(f"{text} is no run but a directory with {len(found)}: {_names(found)}")
        return found[0]
    found = listed(directory)
    if not found:
        raise ConfigError(f"no runs in {directory}: give their directory with --dir or TLOGS_DIR")
    if match := _LATEST.fullmatch(text):
        back = int(match[1] or 0)
        if back < len(found):
            return found[back]
        raise ConfigError(f"no run {text} in {directory}: there are {len(found)}, {_names(found)}")
    same = [run for run in found if text in (run.name, run.path.name)]
    begins = same or [run for run in found if run.name.startswith(text)]
    if len(begins) == 1:
        return begins[0]
    if begins:
        raise ConfigError(f"{text!r} begins the names of {len(begins)} runs in {directory}: {_names(begins)}")
    raise ConfigError(f"no run {text!r} in {directory}: there are {_names(found)}")


def _is_run(path: Path) -> bool:
    return (path / "run.json").exists() or any(path.glob("segment-*.tlf"))


def _names(found: list[RunArchive]) -> str:
    names = ", ".join(run.name for run in found[:5])
    return f"{names} and {len(found) - 5} more" if len(found) > 5 else names or "none"


def make_filter(
    *,
    ranks: str | RankSet | None = None,
    level: str | int | None = None,
    component: str | None = None,
    logger: str | None = None,
    artifact: str | None = None,
    hosts: str | None = None,
    stream: str | None = None,
    grep: str | None = None,
    exclude: str | None = None,
    since: str | int | None = None,
    until: str | int | None = None,
    attempt: str | int = "all",
    end_ns: Callable[[], int] = time.time_ns,
) -> Filter:
    """What is wanted, from texts as the commands take them or from values; times as integers are nanoseconds.

    *end_ns* says when the run ended: a time of day in *since* or *until* is one near it.

    Raises:
        ConfigError: one of them cannot be used.
    """
    if stream is not None and stream not in STREAMS:
        raise ConfigError(f"stream {stream!r}: expected one of {', '.join(STREAMS)}")
    if isinstance(attempt, str) and attempt not in ("all", "last"):
        if not attempt.isdecimal():
            raise ConfigError(f"attempt {attempt!r}: expected a number from 0 on, last or all")
        attempt = int(attempt)
    return Filter(
        ranks=RankSet.parse(ranks) if isinstance(ranks, str) else ranks,
        level=None if level is None else parse_level(level),
        component=component,
        logger=logger,
        artifact=artifact,
        hosts=hosts,
        stream=stream,
        grep=None if grep is None else parse_pattern(grep),
        exclude=None if exclude is None else parse_pattern(exclude),
        since_ns=parse_moment(since, time.time_ns(), end_ns()) if isinstance(since, str) else since,
        until_ns=parse_moment(until, time.time_ns(), end_ns()) if isinstance(until, str) else until,
        attempt=attempt,
    )


def end_of(source: Source) -> int:
    """The time of the newest record of a run, now where there is none, in nanoseconds."""
    return max((header.last_ts for header, _ in source.frames()), default=0) or time.time_ns()


def read(run: str = "latest", *, dir: str | os.PathLike[str] | None = None, **filters: Any) -> Iterator[Record]:
    """The records of a stored run in their order, without a daemon; a live run is read as it stands now.

    *run* is a name, the beginning of one, a path, `latest` or `latest~1`; *dir* where runs are (TLOGS_DIR, else
    `./tlogs-runs`). The filters are those of `tlogs cat`: `ranks="0-3"`, `level="WARNING"`, `component`, `logger`,
    `artifact`, `hosts`, `stream`, `grep`, `exclude`, `since`, `until`, `attempt`.

    Raises:
        ConfigError: no such run, or a filter that cannot be used.
        StoreError: the run cannot be read.
    """
    archive = choose_run(run, directory_of_runs() if dir is None else Path(dir))
    choice = make_filter(end_ns=lambda: end_of(archive), **filters)
    # What is wrong with the arguments is said by the call, not by the first record.
    return (record_of(entry) for entries in Reading(archive, choice).whole() for entry in entries)


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What `tlogs runs` says of a run; the times are those of its first and last record, in nanoseconds."""

    name: str
    path: Path
    live: bool
    start_ns: int
    end_ns: int
    ranks: int
    records: int
    dropped: int
    lost: int
    bytes: int

    def asdict(self) -> dict[str, Any]:
        """The keys of `tlogs runs --json`."""
        return {
            "name": self.name,
            "path": str(self.path),
            "live": self.live,
            "start": rfc3339(self.start_ns),
            "duration_s": round((self.end_ns - self.start_ns) / 1e9, 3),
            "ranks": self.ranks,
            "records": self.records,
            "dropped": self.dropped,
            "lost": self.lost,
            "bytes": self.bytes,
        }


def summary(archive: RunArchive) -> RunSummary:
    """A run at a glance, from the headers of its frames.

    Raises:
        StoreError: the run cannot be read.
    """
    streams = archive.streams()
    spans = [
        (streams[header.stream].corrected(header.first_ts), streams[header.stream].corrected(header.last_ts))
        for header, _ in archive.frames()
        if header.kind is Kind.BATCH and header.stream in streams
    ]
    counts = archive.counts()
    start = min((first for first, _ in spans), default=created_ns(archive.meta))
    origins = [info.origin for info in streams.values()]
    return RunSummary(
        name=archive.name,
        path=archive.path,
        live=archive.is_live(),
        start_ns=start,
        end_ns=max((last for _, last in spans), default=start),
        ranks=len({origin.rank for origin in origins if origin.rank is not None and origin.helper is None}),
        records=counts.records,
        dropped=counts.dropped,
        lost=counts.lost,
        bytes=counts.bytes,
    )


def runs(dir: str | os.PathLike[str] | None = None) -> list[RunSummary]:
    """The stored runs in *dir*, live ones first, then the newest first.

    Raises:
        StoreError: the directory or a run in it cannot be read.
    """
    return [summary(archive) for archive in listed(directory_of_runs() if dir is None else Path(dir))]
