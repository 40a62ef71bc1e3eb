"""One run's directory, open for appending."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from tlogs_collector.store.disk import Disk
from tlogs_collector.store.local.repair import ClosedSegment, Repair
from tlogs_collector.store.local.whole_file import read_map, write_map
from tlogs_collector.store.store import RunFailed, StoredRun, StoredStream
from tlogs_shared.errors import MessageError, StoreError
from tlogs_shared.origin import StreamInfo
from tlogs_shared.storage.batch import HEADER_BYTES, Header
from tlogs_shared.storage.layout import CONTROL_FILE, LEDGER_FILE, RUN_FILE, segment_name
from tlogs_shared.storage.ledger import Ledger
from tlogs_shared.storage.position import START, Position
from tlogs_shared.storage.segment import FILE_HEADER_BYTES, MARK_OFFSET, SegmentHeader, pack_mark, pack_stream

__all__ = ["RunDirectory", "Unsynced"]


@dataclass(slots=True)
class OpenSegment:
    """A segment that is written or not yet synced.

    `end` is the offset behind the last complete frame, `marked` the mark in the file; `streams` have their stream
    frame in it; `torn` is True while a partial frame behind `end` must be cut off before anything else;
    `changed` is True until a sync begins after the last change.
    """

    number: int
    path: str
    file: int
    end: int = FILE_HEADER_BYTES
    marked: int = 0
    streams: set[bytes] = field(default_factory=set)
    torn: bool = False
    changed: bool = True


class Unsynced(NamedTuple):
    """The extent of a sync: the segments in their order, each with its end, and whether names have changed."""

    segments: list[tuple[OpenSegment, int]]
    names: bool
    control: int | None


class RunDirectory:
    """A run that this process holds the lock of.

    Not thread-safe: the store's lock is held for every call but `flush`, which waits for the disk.
    """

    def __init__(self, disk: Disk, path: str, name: str, lock: int, segment_bytes: int) -> None:
        self.disk = disk
        self.path = path
        self.name = name
        self.stored = StoredRun(name, {})
        self.ledger = Ledger()
        self.closed: dict[int, ClosedSegment] = {}
        self.last_frames: dict[bytes, int] = {}
        self.failed: OSError | None = None
        self._lock = lock
        self._trusted = START
        self._notes: list[str] = []
        """The run as found so far, also by a `load` that failed in the middle."""
        self._segment_bytes = segment_bytes
        self._segment: OpenSegment | None = None
        self._closing: list[OpenSegment] = []
        self._names_changed = False
        self._end = START
        self._next_number = 1
        self._control: int | None = None
        self._control_changed = False

    def load(self, meta: Mapping[str, Any], trusted: Position | None = None) -> None:
        """Read what is there and make it whole; nothing behind *trusted* is kept.

        Raises:
            OSError: the disk refuses.
        """
        notes = self._notes
        found = read_map(self.disk, self.path, RUN_FILE, notes)
        known = {**meta, **(found or {})}
        if known != found:
            write_map(self.disk, self.path, RUN_FILE, known)
        self.ledger = Ledger()
        try:
            if values := read_map(self.disk, self.path, LEDGER_FILE, notes):
                self.ledger = Ledger.from_map(values)
        except MessageError as error:
            notes.append(f"{LEDGER_FILE}: {error}; what was removed counts as missing")
        repair = Repair(self.disk, self.path, self.ledger, trusted, notes=notes)
        repair.run()
        if CONTROL_FILE in self.disk.names(self.path):
            self._open_control()  # lines of an earlier life may not be synced yet
        self.closed = repair.segments
        # An entry for a segment that is whole was written just before a crash: nothing was taken out.
        thinned = {number for number, segment in self.closed.items() if segment.thinned}
        self.ledger = replace(self.ledger, thinned={n: c for n, c in self.ledger.thinned.items() if n in thinned})
        self.last_frames = repair.last_frames
        self._end = repair.end
        self._next_number = max(repair.next_number, self._next_number)
        self.stored = StoredRun(
            self.name,
            known,
            repair.streams,
            list(dict.fromkeys(notes)),
            sum(segment.size for segment in repair.segments.values()),
            sum(self.ledger.removed().values()),
        )
        self._notes = []

    @property
    def end(self) -> Position:
        """The end of the last complete frame."""
        return Position(self._segment.number, self._segment.end) if self._segment else self._end

    def append(self, header: Header, payload: bytes) -> None:
        """Write a batch to the end of the last segment, or of a new one.

        Raises:
            StoreError: nothing of it is stored.
        """
        stored = self.stored.streams.get(header.stream)
        assert stored is not None, "put_stream comes before the first batch of a stream"
        self._write(header, payload, stored)
        stored.watermark = header.end
        stored.records += header.count

    def put_stream(self, stream: bytes, info: StreamInfo) -> None:
        """Write a stream frame.

        Raises:
            StoreError: nothing of it is stored.
        """
        stored = self.stored.streams.get(stream) or StoredStream(info)
        header, payload = pack_stream(stream, info, stored.watermark)
        self._write(header, payload, None)
        stored.info = info
        self.stored.streams[stream] = stored

    def _write(self, header: Header, payload: bytes, stored: StoredStream | None) -> None:
        if self.failed is not None:
            raise self.failure()
        pieces = [header.pack(), payload]
        size = HEADER_BYTES + len(payload)
        segment = self._segment
        if segment is None or (segment.end + size > self._segment_bytes and segment.end > FILE_HEADER_BYTES):
            segment = self._begin()
        if stored is not None and header.stream not in segment.streams:
            first, info = pack_stream(header.stream, stored.info, stored.watermark)
            pieces = [first.pack(), info, *pieces]
            size += HEADER_BYTES + len(info)
        try:
            if segment.torn:
                self._cut(segment)
            if self.disk.write(segment.file, pieces) != size:
                self._finish(segment, b"".join(pieces))
        except OSError as error:
            segment.torn = True
            try:
                self._cut(segment)
            except OSError:
                pass  # tried again before the next write
            raise StoreError(error.errno, error.strerror, segment.path) from error
        segment.end += size
        segment.changed = True
        self.stored.bytes += size
        segment.streams.add(header.stream)
        self.last_frames[header.stream] = segment.number

    def _cut(self, segment: OpenSegment) -> None:
        self.disk.truncate(segment.file, segment.end)
        segment.torn = False
        segment.changed = True

    def _finish(self, segment: OpenSegment, data: bytes) -> None:
        """After a short write: the rest, which tells the reason where it fails too."""
        done = self.disk.size(segment.file) - segment.end
        while done < len(data):
            taken = self.disk.write(segment.file, [data[done:]])
            if taken == 0:
                raise OSError(errno.ENOSPC, "nothing more could be written")
            done += taken

    def _begin(self) -> OpenSegment:
        number = self._next_number
        path = f"{self.path}/{segment_name(number)}"
        header = SegmentHeader(self.name, number, self.end).pack()
        try:
            file = self.disk.create(path)
            try:
                if self.disk.write(file, [header]) != len(header):
                    raise OSError(errno.ENOSPC, "no room for a file header")
            except OSError:
                self.disk.close(file)
                self.disk.unlink(path)
                raise
        except OSError as error:
            raise StoreError(error.errno, error.strerror, path) from error
        if self._segment is not None:
            self._closing.append(self._segment)
        self._segment = OpenSegment(number, path, file)
        self._next_number = number + 1
        self._names_changed = True
        self.stored.bytes += len(header)
        return self._segment

    def unsynced(self) -> Unsynced:
        """The unsynced changes; taken under the lock, then given to `flush`."""
        segments = [(item, item.end) for item in self._open_segments() if item.changed]
        for item, _ in segments:
            item.changed = False
        found = Unsynced(segments, self._names_changed, self._control if self._control_changed else None)
        self._names_changed = False
        self._control_changed = False
        return found

    def flush(self, work: Unsynced) -> None:
        """Wait until *work* is on the disk, then mark it so. Called without the lock.

        Raises:
            OSError: the disk refuses.
        """
        for segment, _ in work.segments:
            self.disk.sync(segment.file)
        if work.names:
            self.disk.sync_directory(self.path)
        for segment, end in work.segments:
            self.disk.write_at(segment.file, pack_mark(end), MARK_OFFSET)
            segment.marked = end
        if work.control is not None:
            self.disk.sync(work.control)

    def settle(self) -> None:
        """Close the segments that are complete and synced."""
        for segment in [item for item in self._closing if not item.changed and item.marked == item.end]:
            self._closing.remove(segment)
            self.closed[segment.number] = ClosedSegment(segment.end)
            self.disk.close(segment.file)

    def fail(self, error: OSError) -> None:
        """Take nothing more; what was not synced is given up."""
        self.failed = error
        # From memory: the marks in the files may be lost with the pages that could not be written.
        self._trusted = max(
            [Position(number, segment.size) for number, segment in self.closed.items()]
            + [Position(segment.number, segment.marked) for segment in self._open_segments() if segment.marked],
            default=START,
        )
        self._control_changed = self._control is not None

    def failure(self) -> RunFailed:
        """The error to raise while the run fails."""
        assert self.failed is not None
        failure = RunFailed(self.failed.errno, f"sync failed: {self.failed.strerror}", self.path)
        failure.run = self.name
        return failure

    def reload(self) -> None:
        """After a failed sync: back to what was synced before it.

        Raises:
            OSError: the disk refuses; the run still fails.
        """
        self._close_segments()
        self.load(self.stored.meta, self._trusted)
        self.failed = None

    def append_control(self, line: Mapping[str, Any]) -> None:
        """Add a line to the control journal.

        Raises:
            OSError: the disk refuses; readers skip a partial line.
        """
        control = self._open_control()
        # A crash or a full disk may have left half a line, which must not swallow this one.
        size = self.disk.size(control)
        torn = size > 0 and self.disk.read(control, 1, size - 1) != b"\n"
        data = b"\n" * torn + json.dumps(dict(line)).encode() + b"\n"
        if self.disk.write(control, [data]) != len(data):
            raise OSError(errno.ENOSPC, "a line was not written whole")

    def _open_control(self) -> int:
        if self._control is None:
            self._control = self.disk.extend(f"{self.path}/{CONTROL_FILE}")
            self._names_changed = True
        self._control_changed = True
        return self._control

    def set_meta(self, meta: Mapping[str, Any]) -> None:
        """Replace the metadata.

        Raises:
            OSError: the disk refuses; the old one holds.
        """
        write_map(self.disk, self.path, RUN_FILE, meta)
        self.stored.meta = dict(meta)

    def close(self) -> None:
        """Close the files and give the lock back; nothing is synced."""
        self._close_segments()
        if self._control is not None:
            self.disk.close(self._control)
        self.disk.close(self._lock)

    def _close_segments(self) -> None:
        self._end = self.end
        for segment in self._open_segments():
            self.disk.close(segment.file)
        self._closing, self._segment = [], None

    def _open_segments(self) -> list[OpenSegment]:
        return [*self._closing, *([self._segment] if self._segment else [])]
