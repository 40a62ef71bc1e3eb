"""Repair of a run: finding its sound frames after a crash or damage, and cutting it back to a good end.

Up to the last mark (`tlogs_shared.storage.segment`) everything was synced and may have been acknowledged: nothing is
cut there, damage is noted and skipped. Behind it nothing was acknowledged. Power loss leaves any part of it, so
the frames are checked, payloads too, and from the first thing that does not fit all the rest is set aside. What is
kept is synced before anybody is told of it, and so is the cut: came the rest back after a power loss, it would
contradict the segment that was begun in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tlogs_collector.store.disk import Disk
from tlogs_collector.store.local.whole_file import write_all
from tlogs_collector.store.store import StoredStream
from tlogs_shared.errors import MessageError
from tlogs_shared.origin import Origin, StreamInfo
from tlogs_shared.storage.batch import Header, Kind
from tlogs_shared.storage.layout import PARTIAL_SUFFIX, parse_name, parse_torn, segment_name, torn_name
from tlogs_shared.storage.ledger import Ledger
from tlogs_shared.storage.position import START, Position
from tlogs_shared.storage.segment import (
    FILE_HEADER_BYTES,
    MARK_OFFSET,
    Ending,
    Frame,
    Scan,
    SegmentHeader,
    pack_mark,
    unpack_mark,
    unpack_stream,
)

__all__ = ["ClosedSegment", "Repair"]


@dataclass(frozen=True, slots=True)
class ClosedSegment:
    """A segment that nothing is appended to any more."""

    size: int
    thinned: bool = False


@dataclass(slots=True)
class _Found:
    """A segment as it was found: its file header, None where that is damaged, its mark and its size."""

    number: int
    file: int
    header: SegmentHeader | None
    mark: int
    size: int


@dataclass(slots=True)
class Repair:
    """Scans a run's segments; afterwards its fields describe the run.

    `last_frames` gives for each stream the segment with its last stream frame. With `trusted`, nothing behind
    that place is kept, however sound it looks: a sync of it has failed.
    """

    disk: Disk
    path: str
    ledger: Ledger
    trusted: Position | None = None
    streams: dict[bytes, StoredStream] = field(default_factory=dict)
    segments: dict[int, ClosedSegment] = field(default_factory=dict)
    last_frames: dict[bytes, int] = field(default_factory=dict)
    end: Position = START
    next_number: int = 1
    notes: list[str] = field(default_factory=list)
    missing: int = 0
    _cutting: bool = False

    def run(self) -> None:
        """Read everything, cut what must be cut, sync what is kept.

        Raises:
            OSError: the disk refuses.
        """
        found = self._open_all()
        try:
            known = self.trusted or max(
                [Position(item.number, item.mark) for item in found if item.mark], default=START
            )
            kept = [item for item in found if self._take(item, known)]
            last = [item for item in kept if item.number >= known.segment]
            for item in last:
                # Also where nothing is behind the mark: an earlier try may have cut it and got no further.
                self.disk.sync(item.file)
            self.disk.sync_directory(self.path)
            for item in last:
                if item.size > item.mark:
                    self.disk.write_at(item.file, pack_mark(item.size), MARK_OFFSET)
        finally:
            for item in found:
                self.disk.close(item.file)
        if self.missing > sum(self.ledger.removed().values()):
            lost = self.missing - sum(self.ledger.removed().values())
            self.notes.append(f"{lost} records that were stored are missing")

    def _open_all(self) -> list[_Found]:
        names = self.disk.names(self.path)
        numbers = []
        for name in sorted(names):
            number = parse_name(name)
            torn = parse_torn(name)
            removed = (number or torn or self.ledger.dropped_before) < self.ledger.dropped_before
            if removed or name.endswith(PARTIAL_SUFFIX):
                # The daemon stopped after it had written down the removal, or before a file had its name.
                self.disk.unlink(f"{self.path}/{name}")
            elif number is not None:
                numbers.append(number)
            self.next_number = max(self.next_number, (number or torn or 0) + 1)
        self.next_number = max(self.next_number, self.ledger.dropped_before)
        return [self._open(number) for number in numbers]

    def _open(self, number: int) -> _Found:
        file = self.disk.open(f"{self.path}/{segment_name(number)}")
        beginning = self.disk.read(file, FILE_HEADER_BYTES, 0)
        header: SegmentHeader | None
        try:
            header = SegmentHeader.unpack(beginning)
        except MessageError:
            header = None
        return _Found(number, file, header, unpack_mark(beginning), self.disk.size(file))

    def _take(self, item: _Found, known: Position) -> bool:
        """Count what is in a segment; False where it was set aside."""
        name = segment_name(item.number)
        if item.number > known.segment:
            if self._cutting or self.trusted is not None or not self._fits(item):
                self._set_aside(item)
                return False
            floor = FILE_HEADER_BYTES
        else:
            if item.header is None:
                self.notes.append(f"{name}: the file header is damaged or missing")
            elif not self._fits(item):
                self.notes.append(f"{name}: begins after {item.header.previous}, found is the end at {self.end}")
            floor = item.size if item.number < known.segment else known.offset
            if item.size < item.mark:
                self.notes.append(f"{name}: {item.mark - item.size} bytes are missing at its end")

        scan = Scan(self._reader(item), min(floor, item.size), skip=True)
        self._count(item, scan)
        self.notes += [f"{name}: {to - at} damaged bytes at {at} are skipped" for at, to in scan.damage]
        end = scan.end
        if scan.why is not Ending.CLEAN:
            self.notes.append(f"{name}: {scan.why.value} at {scan.end}, {min(floor, item.size) - scan.end} bytes lost")
            end = min(floor, item.size)
        if floor < item.size:
            tail = Scan(self._reader(item), item.size if self.trusted is None else floor, floor, verify=True)
            self._count(item, tail)
            end = tail.end
            if end < item.size:
                self._cut(item, end, tail.why)
        base = item.header.base if item.header else 0
        self.end = Position(item.number, base + end)
        self.segments[item.number] = ClosedSegment(item.size, thinned=bool(base))
        return True

    def _fits(self, item: _Found) -> bool:
        """Whether the segment comes right after what was kept before it, or after what was removed."""
        if item.header is None:
            return False
        return item.header.follows(self.end) or (
            self.end == START and item.header.previous.segment < self.ledger.dropped_before
        )

    def _count(self, item: _Found, scan: Scan) -> None:
        for frame in scan:
            header = frame.header
            stored = self.streams.get(header.stream)
            if stored is None:
                # Told again by the rank itself when it connects; only of use where the stream frame is damaged.
                stored = self.streams[header.stream] = StoredStream(StreamInfo(Origin(host="", pid=0)))
            self.missing += max(header.first - stored.watermark, 0)
            stored.watermark = max(stored.watermark, header.end)
            if header.kind is Kind.BATCH:
                stored.records += header.count
            else:
                self._learn(item, frame, stored)

    def _learn(self, item: _Found, frame: Frame, stored: StoredStream) -> None:
        header: Header = frame.header
        try:
            stored.info = unpack_stream(header, self.disk.read(item.file, header.size, frame.payload_offset))
        except MessageError as error:
            self.notes.append(f"{segment_name(item.number)}: stream frame at {frame.offset}: {error}")
        else:
            self.last_frames[header.stream] = item.number

    def _reader(self, item: _Found) -> Callable[[int, int], bytes]:
        return lambda size, offset: self.disk.read(item.file, size, offset)

    def _set_aside(self, item: _Found) -> None:
        """Take a whole segment out of the run."""
        self._cutting = True
        name = torn_name(item.number, 0)
        self.disk.rename(f"{self.path}/{segment_name(item.number)}", f"{self.path}/{name}")
        self.notes.append(f"{segment_name(item.number)}: {item.size} bytes never acknowledged, set aside as {name}")

    def _cut(self, item: _Found, end: int, why: Ending) -> None:
        """Take the end of a segment out of the run."""
        self._cutting = True
        name = torn_name(item.number, end)
        text = f"{segment_name(item.number)}: {why.value} at {end}, {item.size - end} bytes never acknowledged"
        try:
            rest = self.disk.read(item.file, item.size - end, end)
            write_all(self.disk, f"{self.path}/{name}", [rest])
            self.notes.append(f"{text}, set aside as {name}")
        except OSError as error:
            # A full disk must not keep the run from opening; cutting gives room.
            self.notes.append(f"{text}, dropped: {error.strerror}")
        self.disk.truncate(item.file, end)
        item.size = end
