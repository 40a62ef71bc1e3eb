"""A run's contents compared with what it should hold."""

from __future__ import annotations

from dataclasses import dataclass, field

from tlogs_shared.storage.batch import Header, Kind
from tlogs_shared.storage.layout import segment_name
from tlogs_shared.storage.position import START, Position
from tlogs_shared.storage.segment import Ending
from tlogs_shared.storage.segment_reader import SegmentReader

__all__ = ["Verification"]


@dataclass(slots=True)
class Verification:
    """The result of a recount.

    `missing` numbers are between stored ones; `removed` ones were taken out to save space and are among them.
    `faults` counts damaged files; `notes` describes them. Segments below `dropped_before` are gone on purpose.
    """

    records: int = 0
    duplicated: int = 0
    missing: int = 0
    removed: int = 0
    faults: int = 0
    dropped_before: int = 1
    watermarks: dict[bytes, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        """True where everything that should be there is there, once."""
        return not self.duplicated and not self.faults and self.missing <= self.removed

    def fault(self, text: str) -> None:
        """Note something that is wrong with a file."""
        self.faults += 1
        self.notes.append(text)

    def count(self, header: Header) -> None:
        """Count the next frame."""
        expected = self.watermarks.get(header.stream, 0)
        if header.kind is Kind.BATCH:
            self.records += header.count
            self.duplicated += max(min(expected, header.end) - header.first, 0)
        self.missing += max(header.first - expected, 0)
        self.watermarks[header.stream] = max(expected, header.end)

    def go_through(self, number: int, segment: SegmentReader | None, end: Position, *, unfinished: bool) -> Position:
        """Check a segment that comes after *end*, payloads too, and return where it ends itself.

        `unfinished`: a daemon is writing it, so its last frame need not be whole.
        """
        name = segment_name(number)
        if segment is None:
            if not unfinished:
                self.fault(f"{name}: empty or removed")
            return end
        header = segment.header
        if header is None:
            self.fault(f"{name}: the file header is damaged")
        elif end == START and header.previous.segment >= self.dropped_before:
            self.fault(f"{name}: what came before it, up to {header.previous}, is missing")
        elif end != START and not header.follows(end):
            self.fault(f"{name}: follows {header.previous}, but found is {end}")
        size = segment.size()
        scan = segment.scan(verify=True)
        for frame in scan:
            self.count(frame.header)
        for at, to in scan.damage:
            self.fault(f"{name}: {to - at} damaged bytes at {at}")
        if scan.why is not Ending.CLEAN and not unfinished:
            self.fault(f"{name}: {scan.why.value} at {scan.end} of {size}")
        elif segment.mark > size:
            self.fault(f"{name}: {segment.mark - size} bytes are missing at its end")
        return Position(number, segment.base + scan.end)
