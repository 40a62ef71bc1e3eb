"""The reader's side of an outbox, for its own process, for another one, and for what a dead one left: one path.

Theory of operation
-------------------
Only the header is mapped; records are read with `pread`, so that a file cut short by somebody kills no reader. A
*look* loads the words of all pieces, and what may be read is what the look *before* it saw, a millisecond or more and
a system call ago: on processors that reorder stores, this is what makes sure that the records behind a word are there.
Then the records are copied and the word is loaded again; where the generation has changed, nothing was read.

Extents that the writer has closed are taken from its table, with the checksum compared. Only what follows the last of
them is skimmed for the ends of its records, at most one batch at a time. `seal` ends the waiting: the process has
ended, what the words say now is final, and a record that is in no closed extent is decoded before it is believed.

Records in a damaged part of the file cannot be supplied: once all before them is stored they count as
acknowledged, and a collector that asks for them is told with a hello from where on there is more.

**A promise about time.** `low_ts` is a time before which no record will follow, though another process takes the
records' times. An append notes that it has begun before it asks for the time, so a reader that asks the clock, finds
no append in progress and afterwards finds all that it published may promise the clock's time, less a margin for
stores that are still on their way. While an append is in progress the promise stays as it was: for `PATIENCE_NS` at
most, because a process can be stopped in the middle of one, and would hold up the merged stream of all the others. A
record that comes older than promised is then late in a live view and in its place in the stored order, as one from a
host whose clock was set back.
"""

from __future__ import annotations

import mmap
import os
import stat
import time
import zlib
from collections.abc import Callable
from logging import CRITICAL
from typing import Any, Final

from tlogs.outbox import life, ring, version1
from tlogs.outbox.file import CRASH_LOGGER
from tlogs.outbox.lock import SENDER, WRITER, is_locked, try_lock
from tlogs.outbox.ring import Entry, Extent, OutboxHeader, Piece
from tlogs_shared.errors import MessageError, ProtocolError
from tlogs_shared.storage.batch import TARGET_RAW_BYTES
from tlogs_shared.storage.layout import FAULT_SUFFIX
from tlogs_shared.storage.record import HEAD_BYTES, MAX_RECORD_BYTES, RECORD_SLACK, Fields, pack, unpack

__all__ = ["Reader", "attach", "open_outbox"]

SETTLE_S: Final = 0.001
"""How long ago a word must have been seen before what it covers is read."""

MARGIN_NS: Final = 1_000_000
"""How far `low_ts` is below the clock: a thousand times longer than a store takes to become visible."""

PATIENCE_NS: Final = 2_000_000_000
"""So long one append in progress keeps `low_ts` where it is."""

WINDOW_BYTES: Final = TARGET_RAW_BYTES + MAX_RECORD_BYTES + 2 * RECORD_SLACK
"""Never is more read at once: the batch that is being filled, and the record that closes it."""

MAX_FAULT_BYTES: Final = 64 * 1024
"""The stacks of a hundred threads are smaller."""


def open_outbox(path: str | os.PathLike[str], *, settle_s: float = SETTLE_S) -> Reader:
    """Open the outbox at *path*, not through links.

    Raises:
        OSError: it cannot be opened, or it belongs to somebody else.
        MessageError: it is not an outbox.
    """
    path = os.fspath(path)
    return _checked(os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK), path, settle_s)


def attach(fd: int, path: str = "") -> Reader:
    """Open anew the outbox behind a descriptor that another process has passed, and close that.

    A lock belongs to an open file description: on the passed one two readers would both get it.

    Raises:
        OSError, MessageError: as `open_outbox`.
    """
    try:
        return _checked(os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK), path, SETTLE_S)
    finally:
        os.close(fd)


def _checked(fd: int, path: str, settle_s: float) -> Reader:
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise MessageError("not an outbox: not a regular file")
        if found.st_uid != os.getuid():
            raise PermissionError(f"it belongs to user {found.st_uid}")
        return Reader(fd, path, settle_s=settle_s)
    except BaseException:
        os.close(fd)
        raise


class Reader:
    """An outbox to read from.

    `header` is the file's header when it was opened, `missing` the count of records skipped as damaged.
    """

    def __init__(
        self, fd: int, path: str = "", *, settle_s: float = SETTLE_S, clock: Callable[[], int] = time.time_ns
    ) -> None:
        """Read from the file behind *fd*, which is the reader's from here on.

        Raises:
            MessageError: it is not an outbox.
            OSError: it cannot be mapped.
        """
        self.path = path
        self.missing = 0
        self.sealed = False
        self.holds = False
        self._fd = fd
        self._settle_s = settle_s
        self._clock = clock
        data = os.pread(fd, ring.HEADER_BYTES, 0)
        self.header = header = _unpack_header(data)
        self._is_old = header.version == 1
        size = ring.HEADER_BYTES if self._is_old else header.start
        if os.fstat(fd).st_size < size:
            raise MessageError(f"expected an outbox with a header of {size} bytes")
        self._count = header.capacity // header.piece
        self._map = mmap.mmap(fd, size)
        self._view = memoryview(self._map)
        self._words = self._view.cast("Q")
        self._acknowledged = header.acknowledged
        self._number = self._most = header.acknowledged
        # Which piece and generation the next record is in, its number and its offset in the piece; () if unknown.
        self._place: tuple[int, ...] = ()
        self._last_ts = 0
        self._looked_s = 0.0
        self._seen: list[int] = []
        self._trusted: list[int] = []
        self._pieces: list[Piece] = []
        self._entries: dict[int, tuple[int, list[Entry]]] = {}
        self._bad: set[tuple[int, int]] = set()
        self._promise = 0
        self._begun, self._begun_ns = 0, 0
        self._fault: bytes | None = None
        self.is_unlinked = False

    # Whose it is.

    @property
    def fd(self) -> int:
        """The reader's own descriptor."""
        return self._fd

    @property
    def stream(self) -> bytes:
        """The stream's id."""
        return self.header.stream

    @property
    def meta(self) -> dict[str, Any]:
        """The writer's metadata, as of now."""
        while True:
            slot: int = self._words[ring.META]
            found = ring.unpack_meta(bytes(self._view[: ring.HEADER_BYTES]), slot)
            if slot == self._words[ring.META]:
                return found

    @property
    def has_ended(self) -> bool:
        """True once the writer has closed the outbox, though its process may live on."""
        return not self._is_old and self._words[ring.ENDED] != 0

    def is_alive(self) -> bool:
        """Return True while the process that writes this outbox lives, and has not closed it."""
        if self._is_old:
            # A worker of 0.1 has a lock on the whole file, which goes with its process.
            return not self.holds and is_locked(self._fd, WRITER)
        if self.has_ended:
            return False
        return life.is_alive(self.header.process, lambda: is_locked(self._fd, WRITER))

    def take(self) -> bool:
        """Become the one who sends from this outbox; return False if somebody else is, and leave it alone then."""
        if not self.holds:
            self.holds = try_lock(self._fd, SENDER) if not self._is_old else try_lock(self._fd, WRITER, 2)
            self._acknowledged = max(self._acknowledged, self._words[ring.ACKNOWLEDGED])
            self._number = max(self._number, self._acknowledged)
        return self.holds

    # Reading.

    @property
    def head(self) -> int:
        """The number that the next record gets."""
        if self.sealed:
            return self._records_end + bool(self._fault_record())
        pieces = ring.pieces_of(self._load(), 0, self.header.piece)
        return max([self._acknowledged, *(piece.end for piece in pieces[-1:])])

    @property
    def acknowledged(self) -> int:
        """The number below which everything is stored elsewhere."""
        return max(self._acknowledged, self._words[ring.ACKNOWLEDGED])

    @property
    def dropped(self) -> dict[int, int]:
        """How many records of each level found no room since the stream began."""
        return ring.unpack_dropped(self._view)

    @property
    def unsent_bytes(self) -> int:
        """The size of what was not handed out yet."""
        self._look()
        pieces = self._pieces if self.sealed else self._as_of(self._load())
        found = 0
        for piece in pieces:
            if piece.end > self._number:
                found += piece.size - (self._offset(piece)[0] if piece.first <= self._number else 0)
        return found

    @property
    def oldest_unsent_ts(self) -> int | None:
        """The time of the oldest record not yet handed out; None if all are, or if the process has ended.

        What is brought in late holds nobody up: it is older than what has been shown.
        """
        if self.sealed:
            return None
        for piece in self._as_of(self._load()):
            if piece.first <= self._number < piece.end:
                data = os.pread(self._fd, HEAD_BYTES, piece.base + self._offset(piece)[0])
                if self._is_still(piece):
                    return int.from_bytes(data[2:], "big")
        return None

    @property
    def low_ts(self) -> int:
        """A time before which no record will follow: the clock's as long as no append is in progress."""
        now = self._clock()
        if self.sealed:
            return now
        begun: int = self._words[ring.BEGUN]
        pieces = self._as_of(self._load())
        if begun == ring.ALWAYS_BEGUN or any(begun == piece.base + piece.size for piece in pieces):
            if begun != self._begun:
                self._begun, self._begun_ns = begun, now
            if now - self._begun_ns < PATIENCE_NS:
                return self._promise
        else:
            self._begun = 0
        self._promise = max(self._promise, now - MARGIN_NS)
        return self._promise

    # Taking records out.

    def cut(self, close_open: bool) -> Extent | None:
        """Hand out the next extent; with *close_open* also one that has not reached the size of a batch.

        Of what the process has not ended with, only what an earlier look saw.
        """
        self._look()
        while True:
            piece = next((one for one in self._pieces if one.first <= self._number < one.end), None)
            if piece is None or (piece.slot, self._number) in self._bad:
                if not self._skip_damage():
                    return self._cut_fault()
                continue
            entry = next((one for one in self._closed_in(piece) if one.first <= self._number < one.end), None)
            if entry is None and not (close_open or self.sealed) and piece is self._pieces[-1]:
                return None  # the writer closes it
            extent = self._read(piece, entry)
            if extent is not None:
                self._number = extent.end
                self._most = max(self._most, extent.end)
                self._last_ts = extent.last_ts
                return extent
            if not self._is_still(piece):
                return None
            self._bad.add((piece.slot, self._number))

    def _read(self, piece: Piece, entry: Entry | None) -> Extent | None:
        """The next extent, from this piece; None where it is used anew, or damaged."""
        if entry is not None:
            data = memoryview(os.pread(self._fd, entry.size, piece.base + entry.start))
            if not self._is_still(piece):
                return None
            if len(data) == entry.size and zlib.crc32(data) == entry.crc:
                self._place = (piece.slot, piece.generation, entry.end, entry.start + entry.size)
                if entry.first < self._number:
                    return ring.skim(data, entry.first, watermark=self._number)
                return Extent(entry.first, entry.count, entry.level, entry.first_ts, entry.last_ts, data)
        offset, number = self._offset(piece)
        while True:
            data = memoryview(os.pread(self._fd, min(piece.size - offset, WINDOW_BYTES), piece.base + offset))
            if not self._is_still(piece):
                return None
            if self.sealed or entry is not None:
                extent = next(ring.scan(data, number, after_ts=self._last_ts), None)
            else:
                extent = ring.skim(data, number)
            if extent is None:
                return None
            offset, number = offset + len(extent.view), extent.end
            if number > self._number:
                break
        self._place = (piece.slot, piece.generation, number, offset)
        if extent.first < self._number:
            extent = ring.skim(extent.view, extent.first, watermark=self._number)
        return extent

    def _offset(self, piece: Piece) -> tuple[int, int]:
        """Where in *piece* to begin to read the next record, and the number of the record there."""
        if self._place[:2] == (piece.slot, piece.generation) and self._place[2] == self._number:
            return self._place[3], self._number
        offset, number = 0, piece.first
        for entry in self._closed_in(piece):
            if entry.end <= self._number:
                offset, number = entry.start + entry.size, entry.end
            elif entry.first <= self._number:
                offset, number = entry.start, entry.first
        return offset, number

    def _closed_in(self, piece: Piece) -> list[Entry]:
        """The extents of *piece* that its writer has closed, as far as the state that was looked at covers them."""
        if self._is_old:
            return []
        generation, found = self._entries.get(piece.slot, (0, []))
        if generation != piece.generation:
            found = []
            self._entries[piece.slot] = (piece.generation, found)
        for number in range(len(found), ring.entries_a_piece(self.header.piece)):
            where = ring.entry_offset(self.header.piece, piece.slot, number)
            entry = Entry.unpack(bytes(self._view[where : where + ring.ENTRY_BYTES]))
            if entry is None or entry.generation != piece.generation:
                break
            begin = found[-1].end if found else piece.first
            if entry.first != begin or entry.end > piece.end or entry.start + entry.size > piece.size:
                break
            found.append(entry)
        return [entry for entry in found if entry.end <= piece.end]

    def _skip_damage(self) -> bool:
        """Go on behind damage, or where it is done already; return False where that is not (yet) to be.

        A gap in a live process's numbers is not damage: the pieces were not all read at the same moment.
        """
        if not self.sealed:
            return False
        starts = [entry.first for piece in self._pieces for entry in self._closed_in(piece)]
        starts += [piece.first for piece in self._pieces if piece.end > piece.first]
        first = min((start for start in starts if start > self._number), default=self._records_end)
        if first <= self._number or self._acknowledged < self._number:
            return False  # later pieces wait until everything before them is stored
        self.missing += first - self._number
        self._number = self._acknowledged = first
        self._place = ()
        return first < self._records_end

    def rewind(self, watermark: int) -> None:
        """Hand out again from this number on.

        Raises:
            ProtocolError: it names a record that was never written.
        """
        self._check(watermark)
        self._number, self._place, self._last_ts = watermark, (), 0

    def acknowledge(self, watermark: int) -> None:
        """Tell the writer that what is below this number is stored elsewhere; a lower one changes nothing.

        Raises:
            ProtocolError: it names a record that was never written.
        """
        assert self.holds, "only who has taken an outbox acknowledges"
        self._check(watermark)
        if watermark > self.acknowledged:
            self._acknowledged = watermark
            self._words[ring.ACKNOWLEDGED] = watermark
            self._number = max(self._number, watermark)

    def _check(self, watermark: int) -> None:
        if watermark > self.head:
            raise ProtocolError(f"acknowledged below {watermark}, but the stream has only {self.head} records")

    # Looking.

    def _look(self) -> None:
        """See how far the writer is, if the last look is long enough ago."""
        if self.sealed:
            return
        now = time.monotonic()
        if now - self._looked_s < self._settle_s:
            return
        self.is_unlinked = os.fstat(self._fd).st_nlink == 0  # and the system call that belongs between two looks
        before, self._seen = self._seen, self._load()
        trusted = before if self._settle_s else self._seen
        self._looked_s = now
        if trusted != self._trusted:
            self._trusted = trusted
            self._pieces = self._as_of(trusted)

    def _load(self) -> list[int]:
        return self._words[ring.WORDS : ring.WORDS + 2 * self._count].tolist()

    def _as_of(self, words: list[int]) -> list[Piece]:
        return ring.pieces_of(words, self.header.start, self.header.piece)

    def _is_still(self, piece: Piece) -> bool:
        """Return True if the piece is not used anew: what was copied from it was there."""
        return self._is_old or self._words[ring.WORDS + 2 * piece.slot] >> ring.GENERATION_SHIFT == piece.generation

    # The end.

    def seal(self) -> None:
        """Treat the words' present values as final: the process has ended."""
        if self.sealed:
            return
        if self._is_old:
            self._pieces = version1.pieces_in(self._fd, self.header.piece)
        else:
            self._pieces = self._as_of(self._load())
        self._acknowledged = self.acknowledged
        self._number = max(self._number, self._acknowledged)
        self.sealed = True

    @property
    def _records_end(self) -> int:
        return max([self.header.acknowledged, self._most, *(piece.end for piece in self._pieces)])

    def _cut_fault(self) -> Extent | None:
        """Faulthandler's output, as the last record."""
        if self.sealed and self._number == self._records_end and (packed := self._fault_record()):
            ts = unpack(packed).ts
            self._number += 1
            return Extent(self._number - 1, 1, CRITICAL, ts, ts, memoryview(packed))
        return None

    def _fault_record(self) -> bytes:
        """Faulthandler's output, from the file beside this outbox, as a record; empty if it wrote nothing."""
        if self._fault is None:
            self._fault = _fault_record(self.path, self._last_record_ts())
        return self._fault

    @property
    def last_ts(self) -> int:
        """The time of the last record of a sealed outbox, acknowledged or not; 0 where there is none to be read."""
        packed = self._fault_record()
        return unpack(packed).ts if packed else self._last_record_ts()

    def _last_record_ts(self) -> int:
        for piece in reversed(self._pieces):
            if piece.end > piece.first:
                offset, closed = 0, self._closed_in(piece)
                if closed:
                    if closed[-1].end == piece.end:
                        return closed[-1].last_ts
                    offset = closed[-1].start + closed[-1].size
                last = closed[-1].last_ts if closed else 0
                while offset < piece.size:
                    data = os.pread(self._fd, min(piece.size - offset, WINDOW_BYTES), piece.base + offset)
                    if (extent := ring.skim(memoryview(data), 0)) is None:
                        break
                    offset, last = offset + len(extent.view), extent.last_ts
                return last
        return 0

    def close(self) -> None:
        """Let go of the file, which stays."""
        self._words.release()
        self._view.release()
        self._map.close()
        os.close(self._fd)

    def delete(self) -> None:
        """Remove the file, and let go of it: its process has ended, and all of it is stored."""
        try:
            if self.path and os.path.samestat(os.fstat(self._fd), os.lstat(self.path)):
                os.unlink(self.path)
                os.unlink(self.path + FAULT_SUFFIX)
        except FileNotFoundError:
            pass
        self.close()


def _unpack_header(data: bytes) -> OutboxHeader:
    try:
        return OutboxHeader.unpack(data)
    except MessageError as error:
        try:
            return version1.unpack_header(data)
        except MessageError:
            raise error from None


def _fault_record(path: str, last_ts: int) -> bytes:
    if not path:
        return b""
    try:
        fd = os.open(path + FAULT_SUFFIX, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        text = os.pread(fd, MAX_FAULT_BYTES, 0).decode("utf-8", "replace").strip()
        written = os.fstat(fd).st_mtime_ns
    finally:
        os.close(fd)
    if not text:
        return b""
    template, _, stacks = text.partition("\n")
    ts = max(last_ts, written, 1 << 32)
    return pack(Fields(ts, CRITICAL, CRASH_LOGGER, template, None, None, "", 0, "", "", {"exc": stacks.strip()}))
