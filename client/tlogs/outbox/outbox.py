"""The outbox: where a logging call leaves its record.

Theory of operation
-------------------
`Outbox.append` packs a record straight into the mapped file and publishes it (`tlogs.outbox.ring` has the format). A
record that is below the *limit* needs nothing else; whatever is rare (a batch is full, a piece is full, the outbox is
full, something was dropped, the outbox is closed) lowers the limit and is dealt with behind it.

Whoever sends the records reads them from the file (`tlogs.outbox.reader`), in this process or in another, and stores
in it below which number all are safe. The writer looks at that word only where it needs room. It never goes below the
highest watermark that it has seen: what it has freed is overwritten.

The lock is re-entrant, and a flag says that this thread is inside: a signal handler or a `__del__` that logs while
its own thread is in here gets in, finds the flag and leaves its record in a list for the outer call. So nothing can
wait for itself.
"""

from __future__ import annotations

import os
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from logging import WARNING
from typing import Any, Final

import msgpack

from tlogs.outbox import ring
from tlogs.outbox.drops import GAP_BYTES, Drops
from tlogs.outbox.file import OutboxFile
from tlogs.outbox.life import this_process
from tlogs.outbox.ring import ALWAYS_BEGUN, BEGUN, COUNT_MASK, COUNT_SHIFT, GENERATION_SHIFT, RECORD, OutboxHeader
from tlogs.outbox.truncate import as_text, shorten
from tlogs_shared.storage.batch import TARGET_RAW_BYTES
from tlogs_shared.storage.record import HEAD_BYTES, MAX_RECORD_BYTES, RECORD_SLACK

__all__ = ["Outbox"]

RESTART_BYTES: Final = 64 * 1024
"""When everything is acknowledged and this much of a piece is used (a quarter of a small one), it is begun anew."""

GROW_AGAIN_NS: Final = 1_000_000_000
"""A disk that had no room is asked again after this time."""

_OLDEST_TS: Final = 1 << 32
"""msgpack writes no smaller number in nine bytes; four seconds after the epoch, so nobody's clock is there."""


class Outbox:
    """A process's outbox, for all its threads."""

    __slots__ = (
        "_acknowledged", "_acquire", "_base", "_busy", "_clock", "_closed", "_deferred", "_drops", "_entries",
        "_extent_first", "_extent_level", "_extent_start", "_file", "_first", "_free", "_grow_ts", "_half", "_index",
        "_limit", "_lock", "_map", "_max_packed", "_offset", "_pack", "_release", "_state", "_state_word", "_stop",
        "_ts", "_used", "_words", "stream",
    )  # fmt: skip

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        stream: bytes,
        meta: Mapping[str, Any],
        capacity: int,
        helper: bool = False,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """Make the outbox file, readable by this user only, and hold it.

        Raises:
            StoreError: the file cannot be made.
            ConfigError: the metadata is too large.
        """
        self.stream = stream
        header = OutboxHeader(stream, capacity, 0, meta=meta, process=this_process(), created_ns=time.time_ns())
        self._file = file = OutboxFile(path, header, helper=helper)
        self._map, self._words = file.map, file.words
        self._clock = clock
        self._unlock()
        self._closed = False
        # Strict about Unicode, because that is a third faster; `_append_carefully` takes what it refuses.
        self._pack = msgpack.Packer().pack
        # Any record fits into the first half of an empty piece, with a gap record before it.
        self._max_packed = min(MAX_RECORD_BYTES + RECORD_SLACK, file.piece // 2 - GAP_BYTES)
        self._acknowledged = 0
        self._ts = self._grow_ts = _OLDEST_TS
        self._drops = Drops()
        self._used: deque[tuple[int, int]] = deque()  # pieces with records: index, first number
        self._free: list[int] = [0]
        # The current piece: which, its beginning, its middle, its end, the number of its first record, its state and
        # where that is stored. Then the offset of the next record, and the open extent.
        self._index = self._base = self._half = self._stop = self._first = self._state = self._state_word = 0
        self._offset = self._limit = 0
        self._extent_start = self._extent_first = self._extent_level = self._entries = 0
        self._next_piece()

    def _unlock(self) -> None:
        """Begin with a new lock and nobody inside."""
        self._lock = threading.RLock()
        self._acquire, self._release = self._lock.acquire, self._lock.release
        self._busy = False
        self._deferred: deque[tuple[Any, ...]] = deque()

    # The writer's side.

    def append(
        self,
        levelno: int,
        logger: str,
        template: str,
        args: Sequence[Any] | Mapping[str, Any] | None,
        message: str | None,
        path: str,
        line: int,
        func: str,
        thread: str,
        extra: Mapping[str, Any] | None,
    ) -> bool:
        """Take a record; False if it had to be dropped. Never raises, never waits for the network.

        The disk is asked for room only where the outbox grows, once in some 20,000 records.
        """
        # As `with` does, in half the time. The lock is taken inside the try statement: no KeyboardInterrupt
        # can leave it locked.
        try:
            self._acquire()
            if self._busy:
                self._deferred.append((levelno, logger, template, args, message, path, line, func, thread, extra))
                return True
            self._busy = True
            try:
                words, start = self._words, self._offset
                words[BEGUN] = start
                ts = self._clock()
                if ts < self._ts:
                    ts = self._ts
                packed = self._pack((ts, levelno, logger, template, args, message, path, line, func, thread, extra))
                size = len(packed)
                end = start + size
                if end < self._limit:
                    # No calls from here to the last store: a KeyboardInterrupt cannot come in between. (A slice of the
                    # map is stored in half the time of one of a view.)
                    self._map[start:end] = packed
                    self._ts = ts
                    self._offset = end
                    if levelno > self._extent_level:
                        self._extent_level = levelno
                    words[self._state_word] = self._state = self._state + (RECORD + size)
                    accepted = True
                else:
                    values = (levelno, logger, template, args, message, path, line, func, thread, extra)
                    accepted = self._append_slowly(ts, values, packed)
            except Exception:  # noqa: BLE001 - a record that cannot be packed must not end a training job
                values = (levelno, logger, template, args, message, path, line, func, thread, extra)
                accepted = self._append_carefully(values)
            finally:
                self._busy = False
        finally:
            try:
                self._release()
            except RuntimeError:
                pass  # a KeyboardInterrupt came while this thread waited for the lock
        if self._deferred:
            self._append_deferred()
        return accepted

    def _append_deferred(self) -> None:
        while True:
            try:
                values = self._deferred.popleft()
            except IndexError:  # another thread was quicker
                return
            self.append(*values)

    def _append_carefully(self, values: Sequence[Any]) -> bool:
        """Take a record that the fast packer refused: with surrogates in its texts, or unpackable fields."""
        if self._closed:
            return False
        try:
            ts = max(self._ts, self._clock())
            try:
                packed = _pack_surrogates((ts, *values))
            except (TypeError, ValueError, OverflowError):
                values = as_text(values)
                packed = _pack_surrogates((ts, *values))
            return self._append_slowly(ts, values, packed)
        except Exception:  # noqa: BLE001 - as above; what is left to do is to count it
            self._drop(WARNING)
            return False

    def _append_slowly(self, ts: int, values: Sequence[Any], packed: bytes) -> bool:
        """Take a record that ends beyond the limit."""
        if self._closed:
            return False
        # Pieces and gap records come before it is published: for a reader it is in progress all the while.
        self._words[BEGUN] = ALWAYS_BEGUN
        try:
            if len(packed) > self._max_packed:
                values = shorten(values, self._max_packed - HEAD_BYTES, _pack_surrogates)
                packed = _pack_surrogates((ts, *values))
            levelno = values[0]
            gap = self._drops.gap(ts) if self._drops.untold else b""
            if not self._make_room(ts, levelno, len(gap) + len(packed)):
                self._drop(levelno)
                return False
            if gap:
                self._write_gap(ts, gap)
            self._write(ts, levelno, packed)
            return True
        finally:
            self._words[BEGUN] = 0

    def _make_room(self, ts: int, levelno: int, size: int) -> bool:
        """Make room for *size* bytes in the current piece; return False where this level must not have them.

        While no other piece is left, the second half of this one is kept for WARNING and above.
        """
        self._adopt()
        while True:
            end = self._offset + size
            if end > self._half and not self._free and ts >= self._grow_ts:
                index = self._file.grow()
                if index is not None:
                    self._free.append(index)
                else:
                    self._grow_ts = ts + GROW_AGAIN_NS
            if end <= (self._stop if self._free or levelno >= WARNING else self._half):
                return True
            if not self._free:
                return False
            self._next_piece()

    def _write(self, ts: int, levelno: int, packed: bytes) -> None:
        size = len(packed)
        # As in append: no calls from here to the last store.
        start = self._offset
        end = start + size
        self._map[start:end] = packed
        self._ts = ts
        self._offset = end
        if levelno > self._extent_level:
            self._extent_level = levelno
        self._words[self._state_word] = self._state = self._state + (RECORD + size)
        if end - self._extent_start >= TARGET_RAW_BYTES:
            self._close_extent()
        self._set_limit()

    def _set_limit(self) -> None:
        """Where `append` must stop and think."""
        if self._drops.untold or self._closed:
            self._limit = 0
        else:
            stop = self._stop if self._free else self._half
            self._limit = min(self._extent_start + TARGET_RAW_BYTES, stop + 1)

    def _next_piece(self) -> None:
        """Go on in the free piece that is nearest to the beginning of the file."""
        if self._offset > self._extent_start:
            self._close_extent()
        head, file = self._get_head(), self._file
        index = min(self._free)
        generation = file.generations[index] % ring.MAX_GENERATION + 1
        word = ring.WORDS + 2 * index
        # In the order in which a reader of what is half written finds no records; see `tlogs.outbox.ring`.
        self._words[word] = state = generation << GENERATION_SHIFT
        self._words[word + 1] = state | head
        file.generations[index] = generation
        self._free.remove(index)
        self._used.append((index, head))
        self._index, self._first, self._state, self._state_word = index, head, state, word
        self._base = self._offset = self._extent_start = file.base(index)
        self._stop = self._base + file.piece
        self._half = self._base + file.piece // 2
        self._extent_first, self._extent_level, self._entries = head, 0, 0
        self._set_limit()

    def _get_head(self) -> int:
        return self._first + (self._state >> COUNT_SHIFT & COUNT_MASK)

    def _close_extent(self) -> None:
        """What has been written since the last extent is one."""
        start, end, first = self._extent_start, self._offset, self._extent_first
        # A copy, because a view would keep the map of a child that is forked meanwhile from being closed.
        head, data = self._get_head(), self._map[start:end]
        # The first record's time is in the record itself.
        first_ts = int.from_bytes(data[2:HEAD_BYTES], "big")
        entry = ring.Entry(
            self._state >> GENERATION_SHIFT, first, head - first, self._extent_level, first_ts, self._ts,
            start - self._base, end - start, zlib.crc32(data),
        ).pack()  # fmt: skip
        where = ring.entry_offset(self._file.piece, self._index, self._entries)
        # Without a call, so that a signal comes before all of it or after all of it.
        self._map[where : where + ring.ENTRY_BYTES] = entry
        self._entries += 1
        self._extent_start = end
        self._extent_first = head
        self._extent_level = 0

    # Acknowledgements.

    def _adopt_watermark(self) -> None:
        watermark = self._words[ring.ACKNOWLEDGED]
        if watermark < self._acknowledged:
            self._words[ring.ACKNOWLEDGED] = self._acknowledged  # stored by somebody who had slept
        elif watermark <= self._get_head():
            self._acknowledged = watermark

    def _adopt(self) -> None:
        """Free what is acknowledged; where that is everything, begin again at the beginning."""
        self._adopt_watermark()
        while len(self._used) > 1 and self._used[1][1] <= self._acknowledged:
            self._free.append(self._used.popleft()[0])
        if self._acknowledged == self._get_head() and self._offset - self._base > min(
            RESTART_BYTES, self._file.piece // 4
        ):
            # The open extent ends here too, so that nothing of it is taken for the next piece's.
            self._extent_start = self._offset
            self._free.append(self._used.popleft()[0])
            self._next_piece()

    # Drops.

    def _drop(self, levelno: int) -> None:
        self._drops.count(levelno)
        self._limit = 0
        self._file.store_dropped(self._drops.total)

    def _write_gap(self, ts: int, gap: bytes) -> None:
        self._drops.untold = {}
        self._write(ts, WARNING, gap)

    # For everyone else.

    @contextmanager
    def _inside(self) -> Iterator[None]:
        """Keep other threads out, and what this thread logs meanwhile waiting."""
        with self._lock:
            outer = self._busy  # true in a signal handler that interrupted a logging call
            self._busy = True
            try:
                yield
            finally:
                self._busy = outer
        if self._deferred and not outer:
            self._append_deferred()

    def _tell_dropped(self, levelno: int) -> None:
        """Write what was dropped, if a record of this level would find room."""
        if self._drops.untold and not self._closed:
            ts = max(self._ts, self._clock())
            gap = self._drops.gap(ts)
            if self._make_room(ts, levelno, len(gap)):
                self._write_gap(ts, gap)

    def set_meta(self, meta: Mapping[str, Any]) -> None:
        """Store what whoever recovers this outbox should know: the origin and the collector.

        Raises:
            ConfigError: it is too large.
        """
        with self._inside():
            if not self._closed:
                self._file.store_meta(meta)

    def trim(self) -> None:
        """Free what is acknowledged; where that is everything, give the disk space beyond the first piece back."""
        with self._inside():
            if not self._closed:
                self._adopt()
                if self._acknowledged == self._get_head() and self._file.pieces > 1:
                    if self._index != 0:
                        self._extent_start = self._offset
                        self._free.append(self._used.popleft()[0])
                        self._next_piece()
                    self._file.shrink()
                    self._free = [index for index in self._free if index < self._file.pieces]
                self._tell_dropped(0)
                self._set_limit()

    def close(self, *, delete: bool) -> None:
        """Take nothing more and give the file up; without *delete* it is left for whoever recovers it."""
        with self._inside():
            if not self._closed:
                self._tell_dropped(WARNING)
                if self._offset > self._extent_start:
                    self._close_extent()
                self._adopt_watermark()
                self._closed, self._limit = True, 0
                self._file.close(delete=delete)

    def abandon(self) -> None:
        """In a forked child: let go of the parent's outbox, which stays as it is."""
        self._unlock()  # the thread that held the parent's lock may not exist here
        if not self._closed:
            self._closed, self._limit = True, 0
            self._file.forget()

    @property
    def path(self) -> str:
        """The path of the file."""
        return self._file.path

    @property
    def fd(self) -> int:
        """A descriptor of the file, for whoever is to read it.

        Raises:
            OSError: the program has closed it, and the file has no name any more.
        """
        return self._file.fd

    @property
    def is_unlinked(self) -> bool:
        """True once somebody has removed the file: its records are sent still, and a new one must follow it."""
        with self._inside():
            return not self._closed and self._file.is_unlinked

    @property
    def head(self) -> int:
        """The number that the next record gets."""
        with self._inside():
            return self._get_head()

    @property
    def acknowledged(self) -> int:
        """The number below which everything is stored elsewhere."""
        with self._inside():
            if not self._closed:
                self._adopt_watermark()
            return self._acknowledged

    @property
    def dropped(self) -> dict[int, int]:
        """How many records of each level were dropped since the stream began."""
        with self._inside():
            return dict(self._drops.total)


def _pack_surrogates(values: Sequence[Any]) -> bytes:
    return bytes(msgpack.packb(values, unicode_errors="surrogatepass"))
