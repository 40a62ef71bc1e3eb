"""A run in a directory here, read without a daemon; one that is being written may be read at the same time."""

from __future__ import annotations

import errno
import json
import os
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tlogs.reading.segment_file import SegmentFile
from tlogs.reading.verify import Verification
from tlogs_shared.errors import MessageError, StoreError
from tlogs_shared.host import is_locked
from tlogs_shared.storage.batch import HEADER_BYTES, Header, check_payload
from tlogs_shared.storage.layout import (
    CONTROL_FILE,
    LEDGER_FILE,
    LOCK_FILE,
    RUN_FILE,
    parse_name,
    parse_torn,
    segment_name,
)
from tlogs_shared.storage.ledger import Ledger
from tlogs_shared.storage.position import START, Position
from tlogs_shared.storage.segment import FILE_HEADER_BYTES, Scan

__all__ = ["LocalRun"]

_OPEN_SEGMENTS: Final = 8
"""Segments that are kept open: a reader is in one or two of them at a time."""


class LocalRun:
    """One run, read from its directory. Not for use by several threads at once.

    `notes` collects what was found wrong, one line each; whatever can be read is read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.notes: list[str] = []
        self.meta: dict[str, Any] = self._read_map(RUN_FILE)
        self._open: OrderedDict[int, SegmentFile] = OrderedDict()

    def __enter__(self) -> LocalRun:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the open files."""
        self._open.clear()

    @property
    def name(self) -> str:
        """The run's name; the directory's where nothing else is known."""
        return str(self.meta.get("name") or self.path.resolve().name)

    @property
    def created_ns(self) -> int:
        """When the run began, 0 where that is not known."""
        value = self.meta.get("created_ns")
        return value if isinstance(value, int) else 0

    def is_called(self, text: str, /) -> bool:
        """Whether *text* is a name of this run: its own, or its directory's."""
        return text in (self.name, self.path.name)

    def segments(self) -> list[int]:
        """The numbers of the segments that are there, in order.

        Raises:
            StoreError: the directory cannot be read.
        """
        return sorted(number for name in self._names() if (number := parse_name(name)) is not None)

    def set_aside(self) -> list[str]:
        """The names of files that hold what was cut off damaged segments."""
        return sorted(name for name in self._names() if parse_torn(name) is not None)

    def frames(self, position: Position = START) -> Iterator[tuple[Header, Position]]:
        """The frames from *position* on, that one included, each with its own; payloads are not read.

        An unfinished frame at the end is left for later.

        Raises:
            StoreError: the directory or a segment cannot be read.
        """
        for number in self.segments():
            if number < position.segment:
                continue
            segment = self._segment(number, renew=True)
            if segment is None:
                continue
            scan = segment.scan(position.offset if number == position.segment else 0)
            yield from segment.place(scan)
            self._note_damage(number, scan)

    def payload(self, header: Header, position: Position) -> bytes:
        """The payload of the frame that was found at *position*.

        Raises:
            MessageError: it is damaged.
            StoreError: the run has been removed, or cannot be read.
        """
        segment = self._segment(position.segment)
        if segment is not None and not segment.holds(position.offset):
            segment = self._segment(position.segment, renew=True)
        if segment is None or not segment.holds(position.offset):
            raise StoreError(errno.ENOENT, "removed to save space", str(self.path / segment_name(position.segment)))
        payload = segment.read(header.size, position.offset + HEADER_BYTES)
        check_payload(header, payload)
        return payload

    def size(self) -> int:
        """The size of the run's files, in bytes."""
        total = 0
        for name in self._names():
            try:
                total += (self.path / name).stat().st_size
            except OSError:
                continue  # removed meanwhile
        return total

    def removed(self) -> int:
        """How many records were stored and taken out again to save space."""
        return sum(self._ledger().removed().values())

    def verify(self) -> Verification:
        """Count again from the segments, payloads checked, and compare every stream's numbers.

        Raises:
            StoreError: the directory or a segment cannot be read.
        """
        ledger = self._ledger()
        found = Verification(removed=sum(ledger.removed().values()), dropped_before=ledger.dropped_before)
        numbers = self.segments()
        live = self._is_held()
        end = START
        for number in numbers:
            segment = self._segment(number, renew=True)
            end = found.go_through(number, segment, end, unfinished=live and number == numbers[-1])
        found.notes += [f"{name}: set aside" for name in self.set_aside()]
        return found

    def is_live(self) -> bool:
        """Whether a daemon has the run open now, and more may come: a run that is over has its end in its metadata."""
        return self._is_held() and "ended_ns" not in self._read_map(RUN_FILE)

    def _is_held(self) -> bool:
        return is_locked(self.path / LOCK_FILE)

    def control(self) -> list[dict[str, Any]]:
        """The lines of the run's control journal: who asked for which levels, when."""
        return read_lines(self.path / CONTROL_FILE)

    def _names(self) -> list[str]:
        try:
            return os.listdir(self.path)
        except OSError as error:
            raise StoreError(error.errno, error.strerror, str(self.path)) from error

    def _segment(self, number: int, *, renew: bool = False) -> SegmentFile | None:
        """The segment, None where it is not there or has only been begun; `renew`: as it is now on the disk."""
        segment = self._open.get(number)
        try:
            if segment is None or (renew and not segment.is_current()):
                segment = SegmentFile(self.path, number)
        except FileNotFoundError:
            self._note(f"{segment_name(number)}: removed while it was read")
            return None
        except OSError as error:
            raise StoreError(error.errno, error.strerror, str(self.path / segment_name(number))) from error
        if segment.size() < FILE_HEADER_BYTES:
            return None
        self._open[number] = segment
        self._open.move_to_end(number)
        if len(self._open) > _OPEN_SEGMENTS:
            self._open.popitem(last=False)
        return segment

    def _ledger(self) -> Ledger:
        if not (self.path / LEDGER_FILE).exists():
            return Ledger()
        try:
            return Ledger.from_map(self._read_map(LEDGER_FILE))
        except MessageError as error:
            self._note(f"{LEDGER_FILE}: {error}")
            return Ledger()

    def _read_map(self, name: str) -> dict[str, Any]:
        try:
            values = json.loads((self.path / name).read_bytes())
        except (OSError, ValueError) as error:
            self._note(f"{name}: {error}")
            return {}
        if not isinstance(values, dict):
            self._note(f"{name}: expected a map, found {type(values).__name__}")
            return {}
        return values

    def _note_damage(self, number: int, scan: Scan) -> None:
        for at, to in scan.damage:
            self._note(f"{segment_name(number)}: {to - at} damaged bytes at {at} skipped")

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The maps in a file with one JSON map a line; malformed lines (a partial last one) are skipped."""
    try:
        # After the last newline there is at most a partial line.
        lines = path.read_bytes().split(b"\n")[:-1]
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            values = json.loads(line)
        except ValueError:
            continue
        if isinstance(values, dict):
            found.append(values)
    return found
