"""How a run is kept within its bounds: what is removed, in which order, and how that is counted.

The oldest closed segment is *thinned* first: rewritten with only the batches that hold a WARNING or more. When every
closed segment is thinned, the oldest is dropped whole. What goes is written into the run's ledger before it goes, so a
crash in between counts nothing twice and loses no count. The segment that is being written is never touched.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from tlogs_collector.store.disk import Disk
from tlogs_collector.store.local.repair import ClosedSegment
from tlogs_collector.store.local.run_directory import RunDirectory
from tlogs_collector.store.local.segment_reader import open_segment
from tlogs_collector.store.local.whole_file import write_map
from tlogs_shared.storage.batch import HEADER_BYTES, Kind
from tlogs_shared.storage.layout import (
    LEDGER_FILE,
    LOCK_FILE,
    PARTIAL_SUFFIX,
    is_of_run,
    parse_torn,
    segment_name,
)
from tlogs_shared.storage.segment import FILE_HEADER_BYTES, MARK_OFFSET, Frame, SegmentHeader, pack_mark, pack_stream
from tlogs_shared.storage.segment_reader import SegmentReader

__all__ = ["remove_run", "shrink"]

_KEPT_LEVEL: Final = logging.WARNING


def shrink(run: RunDirectory, lock: threading.Lock, flush: Callable[[RunDirectory], None]) -> bool:
    """Thin or drop one segment of *run*; return False if there is none left to take.

    *lock* is the store's; *flush* syncs the run, and is called without it.

    Raises:
        OSError: the disk refuses; nothing is removed.
    """
    with lock:
        closed = dict(sorted(run.closed.items()))
    for number, segment in closed.items():
        if not segment.thinned:
            thin(run, number, lock)
            return True
    # The streams' descriptions stay, repeated in the newest segment. Where there is hardly more than that,
    # removing it gives no room, and would go on for ever.
    streams = run.stored.streams.items()
    known = sum(HEADER_BYTES + pack_stream(stream, stored.info, 0)[0].size for stream, stored in streams)
    if sum(segment.size for segment in closed.values()) <= 2 * (FILE_HEADER_BYTES + known):
        return False
    drop(run, min(closed), lock, flush)
    return True


def thin(run: RunDirectory, number: int, lock: threading.Lock) -> None:
    """Rewrite a closed segment without the batches below WARNING.

    Raises:
        OSError: the disk refuses; the segment is as it was.
    """
    path = f"{run.path}/{segment_name(number)}"
    with open_segment(run.disk, run.path, number) as reader:
        copy = _Thinned(run, f"{path}{PARTIAL_SUFFIX}", reader)
        size = copy.write()
    ledger = run.ledger.thin(number, copy.removed)
    write_map(run.disk, run.path, LEDGER_FILE, ledger.as_map())
    run.disk.rename(f"{path}{PARTIAL_SUFFIX}", path)
    run.disk.sync_directory(run.path)
    with lock:
        run.ledger = ledger
        _account(run, copy.taken, copy.removed)
        run.stored.bytes -= run.closed[number].size - size
        run.closed[number] = ClosedSegment(size, thinned=True)


def drop(run: RunDirectory, number: int, lock: threading.Lock, flush: Callable[[RunDirectory], None]) -> None:
    """Remove the oldest segment. Stream descriptions that only it has are first repeated in the newest one.

    Raises:
        OSError: the disk refuses; the segment is still there, or will be gone when the run is opened again.
    """
    removed: Counter[int] = Counter()
    taken: Counter[bytes] = Counter()
    with open_segment(run.disk, run.path, number) as reader:
        for frame in reader.scan():
            if frame.header.kind is Kind.BATCH:
                removed[frame.header.level] += frame.header.count
                taken[frame.header.stream] += frame.header.count
    with lock:
        for stream in [stream for stream, last in run.last_frames.items() if last == number]:
            run.put_stream(stream, run.stored.streams[stream].info)
    flush(run)
    ledger = run.ledger.drop(number, removed)
    write_map(run.disk, run.path, LEDGER_FILE, ledger.as_map())
    with lock:
        run.ledger = ledger
        _account(run, taken, removed)
        run.stored.bytes -= run.closed.pop(number).size
    run.disk.unlink(f"{run.path}/{segment_name(number)}")
    for name in run.disk.names(run.path):
        if (torn := parse_torn(name)) is not None and torn <= number:
            run.disk.unlink(f"{run.path}/{name}")


def remove_run(disk: Disk, path: str, before: float) -> bool:
    """Remove a run not written to since *before* and not open in any daemon; return True if it was removed.

    Files that are not the store's stay, and the directory with them.

    Raises:
        OSError: the disk refuses; what is left is removed another time.
    """
    names = [name for name in disk.names(path) if is_of_run(name)]
    if not names or max(disk.modified(f"{path}/{name}") for name in names) >= before:
        return False
    lock = disk.lock(f"{path}/{LOCK_FILE}")
    if lock is None:
        return False
    try:
        for name in names:
            disk.unlink(f"{path}/{name}")
        disk.unlink(f"{path}/{LOCK_FILE}")
        if not disk.names(path):
            disk.remove_directory(path)
    finally:
        disk.close(lock)
    return True


def _account(run: RunDirectory, taken: Counter[bytes], removed: Counter[int]) -> None:
    run.stored.removed += sum(removed.values())
    for stream, count in taken.items():
        run.stored.streams[stream].records -= count


class _Thinned:
    """The thinned copy of a segment: `removed` counts by level, `taken` by stream, what it leaves out.

    `ends` holds each stream's last stream frame and its watermark; `stale` are the streams of which something was left
    out, so that their end has to be repeated.
    """

    def __init__(self, run: RunDirectory, path: str, reader: SegmentReader) -> None:
        self._disk = run.disk
        self._path = path
        self._reader = reader
        self._header = replace(reader.header or SegmentHeader(run.name, reader.number), thinned=True)
        self.removed: Counter[int] = Counter()
        self.taken: Counter[bytes] = Counter()
        self._ends: dict[bytes, tuple[Frame, int]] = {}
        self._stale: set[bytes] = set()

    def write(self) -> int:
        """Write it, synced and marked; its size."""
        file = self._disk.create(self._path)
        try:
            size = self._put(file, self._header.pack())
            for frame in self._reader.scan(verify=True):
                if self._is_kept(frame):
                    size += self._put(file, frame.header.pack(), self._payload(frame))
            for stream in sorted(self._stale & self._ends.keys()):
                frame, watermark = self._ends[stream]
                size += self._put(file, replace(frame.header, first=watermark).pack(), self._payload(frame))
            self._disk.write_at(file, pack_mark(size), MARK_OFFSET)
            self._disk.sync(file)
        finally:
            self._disk.close(file)
        return size

    def _is_kept(self, frame: Frame) -> bool:
        header = frame.header
        if header.kind is Kind.STREAM:
            kept = header.stream not in self._ends
            self._ends[header.stream] = frame, header.end
        else:
            kept = header.level >= _KEPT_LEVEL
            if header.stream in self._ends:
                self._ends[header.stream] = self._ends[header.stream][0], header.end
            if not kept:
                self.removed[header.level] += header.count
                self.taken[header.stream] += header.count
        if not kept:
            self._stale.add(header.stream)
        return kept

    def _payload(self, frame: Frame) -> bytes:
        return self._reader.read_file(frame.header.size, frame.payload_offset)

    def _put(self, file: int, *pieces: bytes) -> int:
        data = b"".join(pieces)
        rest = data
        while rest:
            rest = rest[self._disk.write(file, [rest]) :]
        return len(data)
