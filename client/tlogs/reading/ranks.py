"""The ranks of a run, a row for each: as its collector last heard of them, or as they are stored."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypedDict

from tlogs.reading.run import Run, describe
from tlogs.reading.stamp import rfc3339
from tlogs_shared.end import RUNNING, SILENT, STARTING
from tlogs_shared.errors import MessageError, StoreError
from tlogs_shared.origin import StreamInfo
from tlogs_shared.outcome import newest
from tlogs_shared.protocol.rows import PeerRow
from tlogs_shared.storage.batch import Header, Kind, check_payload, records
from tlogs_shared.storage.position import Position
from tlogs_shared.storage.record import message_of

__all__ = ["RankRow", "live_rows", "stored_rows"]

BATCHES_READ: Final = 3
"""A rank's last words are in its last batches; more of them are not searched."""

MAX_SAID: Final = 500


class _Sometimes(TypedDict, total=False):
    duplicate: bool
    """Another live process says that it is this rank."""
    late: bool
    """Heartbeats of its host are missing."""
    outbox: str
    """Where its outbox lies, if nobody has brought that in."""


class RankRow(_Sometimes):
    """A rank, as `tlogs ranks --json` prints it; a stored one has neither settings nor anything under way."""

    rank: int
    host: str
    pid: int
    attempt: int
    state: str
    since: str | None
    exit: dict[str, Any] | None
    stored: int
    in_flight: int
    dropped: int
    last_record_s: float | None
    last_said: str | None
    last_heard_s: float
    clock_offset_ms: float
    revision: int


@dataclass(slots=True)
class _Stream:
    """What the headers of a stream's frames say."""

    count: int = 0
    last_ts: int = 0
    described: list[tuple[Header, Position]] = field(default_factory=list)
    batches: deque[tuple[Header, Position]] = field(default_factory=lambda: deque(maxlen=BATCHES_READ))


def live_rows(rows: Iterable[PeerRow], run: Run | None) -> list[RankRow]:
    """The rows of a collector, with what each rank said last, which only the store has; *run* is where that is read.

    A store that cannot be read has no last words.
    """
    rows = list(rows)
    said: dict[bytes, str] = {}
    if run is not None and rows:
        try:
            streams = _survey(run)
            said = {row["stream"]: _last_said(run, streams[row["stream"]]) for row in rows if row["stream"] in streams}
        except StoreError:
            pass
    return [_public(row, said.get(row["stream"]) or None) for row in rows]


def stored_rows(run: Run, now_ns: int, *, every_attempt: bool = False) -> list[RankRow]:
    """The ranks of a stored run, by rank; each with its newest attempt, or with all.

    Raises:
        StoreError: the run cannot be read.
    """
    streams = _survey(run)
    infos = describe(run, {stream: found.described for stream, found in streams.items()})
    is_live = run.is_live()
    shown = _ranks(infos.values()) if every_attempt else newest(infos.values())
    stream_of = {id(info): stream for stream, info in infos.items()}
    return [
        _stored_row(info, streams[stream_of[id(info)]], run, now_ns, is_live=is_live)
        for info in sorted(shown, key=lambda info: (info.origin.rank, info.attempt))
    ]


def _ranks(infos: Collection[StreamInfo]) -> Sequence[StreamInfo]:
    return [info for info in infos if info.is_rank]


def _stored_row(info: StreamInfo, stream: _Stream, run: Run, now_ns: int, *, is_live: bool) -> RankRow:
    end = info.end
    open_state = (RUNNING if stream.count else STARTING) if is_live else SILENT
    last_ns = info.corrected(stream.last_ts) if stream.count else None
    heard_ns = max(info.since_ns, last_ns or 0) or run.created_ns
    since_ns = info.since_ns if is_live or end is not None else last_ns
    row = RankRow(
        rank=info.origin.rank or 0,
        host=info.origin.host,
        pid=info.origin.pid,
        attempt=info.attempt,
        state=open_state if end is None else end.how,
        since=rfc3339(since_ns) if since_ns else None,
        exit=None if end is None else end.exit,
        stored=stream.count,
        in_flight=0,
        dropped=sum(info.dropped.values()),
        last_record_s=None if last_ns is None else _age_s(now_ns, last_ns),
        last_said=_last_said(run, stream) or None,
        last_heard_s=_age_s(now_ns, heard_ns),
        clock_offset_ms=0.0 if info.offset_ns is None else round(info.offset_ns / 1e6, 3),
        revision=0,
    )
    if row["state"] == SILENT and info.origin.outbox:
        row["outbox"] = info.origin.outbox
    return row


def _age_s(now_ns: int, ns: int) -> float:
    return round(max(now_ns - ns, 0) / 1e9, 3)


def _public(row: PeerRow, said: str | None) -> RankRow:
    found = RankRow(
        rank=row["rank"],
        host=row["host"],
        pid=row["pid"],
        attempt=row["attempt"],
        state=row["state"],
        since=rfc3339(row["since_ns"]) if row["since_ns"] else None,
        exit=row["exit"],
        stored=row["stored"],
        in_flight=row["in_flight"],
        dropped=row["dropped"],
        last_record_s=row["last_record_s"],
        last_said=said,
        last_heard_s=row["last_heard_s"],
        clock_offset_ms=row["clock_offset_ms"],
        revision=row["revision"],
    )
    if "duplicate" in row:
        found["duplicate"] = row["duplicate"]
    if "late" in row:
        found["late"] = row["late"]
    if "outbox" in row:
        found["outbox"] = row["outbox"]
    return found


def _survey(run: Run) -> dict[bytes, _Stream]:
    """One look at the headers of all frames; no record is read."""
    streams: dict[bytes, _Stream] = {}
    for header, position in run.frames():
        if (stream := streams.get(header.stream)) is None:
            stream = streams[header.stream] = _Stream()
        if header.kind is Kind.STREAM:
            stream.described.append((header, position))
        elif header.count:
            stream.count += header.count
            stream.last_ts = header.last_ts
            stream.batches.append((header, position))
    return streams


def _last_said(run: Run, stream: _Stream) -> str:
    """The last record that the program logged itself; ours about its start and end are no words of its own."""
    for header, position in reversed(stream.batches):
        try:
            payload = run.payload(header, position)
            check_payload(header, payload)
            found = records(header, payload)
        except (MessageError, StoreError):
            continue  # damaged, or removed meanwhile
        for record in reversed(found):
            if (record.extra or {}).get("stream") != "tlogs":
                return message_of(record)[:MAX_SAID]
    return ""
