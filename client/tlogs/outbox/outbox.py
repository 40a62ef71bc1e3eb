"""The outbox: where a logging call leaves its record, and where the forwarder takes it from.

Theory of operation
-------------------
`Outbox.append` packs a record straight into the mapped file and publishes it (`tlogs.outbox.ring` has the format). A
record that is below the *limit* needs nothing else; whatever is rare (a batch is full, a piece is full, the outbox is
full, something was dropped, the outbox is closed) lowers the limit and is dealt with behind it.

The writer marks what travels together: an *extent* is closed when its records reach the size of a batch, or at the
end of a piece, or by the forwarder when it has waited long enough. Extents stay as they were cut until they are
acknowledged, so that what is sent again is the same batch.

The lock is re-entrant, and a flag says that this thread is inside: a signal handler or a `__del__` that logs while
its own thread is in here gets in, finds the flag and leaves its record in a list for the outer call. So nothing can
wait for itself.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from logging import WARNING
from typing import Any, Final

import msgpack

from tlogs.outbox.drops import GAP_BYTES, Drops
from tlogs.outbox.extents import Extents
from tlogs.outbox.file import OutboxFile
from tlogs.outbox.ring import END_INDEX, PIECE_HEADER_BYTES, Extent, FileHeader, pack_piece_header
from tlogs.outbox.truncate import as_text, shorten
from tlogs_shared.errors import ProtocolError
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
    """A process's outbox: one writer side for all its threads, one reader side for the forwarder."""

    __slots__ = (
        "_acknowledged", "_acquire", "_base", "_busy", "_clock", "_closed", "_deferred", "_drops", "_end_word",
        "_extent_first", "_extent_level", "_extent_start", "_extents", "_file", "_free", "_grow_ts", "_half",
        "_head", "_limit", "_lock", "_max_packed", "_offset", "_pack", "_release", "_stop", "_ts", "_used",
        "_view", "_words", "stream",
    )  # fmt: skip

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        stream: bytes,
        meta: Mapping[str, Any],
        capacity: int,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """Make the outbox file, readable by this user only, and hold it.

        Raises:
            StoreError: the file cannot be made.
            ConfigError: the metadata is too large.
        """
        self.stream = stream
        self._file = file = OutboxFile(path, FileHeader(stream, capacity, 0, meta=meta))
        self._view, self._words = file.view, file.words
        self._clock = clock
        self._unlock()
        self._closed = False
        # Strict about Unicode, because that is a third faster; `_append_carefully` takes what it refuses.
        self._pack = msgpack.Packer().pack
        # Any record fits into the first half of an empty piece, with a gap record before it.
        self._max_packed = min(MAX_RECORD_BYTES + RECORD_SLACK, (file.piece - PIECE_HEADER_BYTES) // 2 - GAP_BYTES)
        self._head = self._acknowledged = 0
        self._ts = self._grow_ts = _OLDEST_TS
        self._drops = Drops()
        self._extents = Extents()
        self._used: deque[tuple[int, int]] = deque()  # pieces with records: index, first number
        self._free: list[int] = [0]
        # The current piece (its beginning, its middle, its end), the offset of the next record, and the open extent.
        self._base = self._half = self._stop = self._offset = self._end_word = self._limit = 0
        self._extent_start = self._extent_first = self._extent_level = 0
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
        # What `with` would do, in half the time. The lock is taken inside the try statement: no KeyboardInterrupt
        # can leave it locked.
        try:
            self._acquire()
            if self._busy:
                self._deferred.append((levelno, logger, template, args, message, path, line, func, thread, extra))
                return True
            self._busy = True
            try:
                ts = self._clock()
                if ts < self._ts:
                    ts = self._ts
                packed = self._pack((ts, levelno, logger, template, args, message, path, line, func, thread, extra))
                start = self._offset
                end = start + len(packed)
                if end < self._limit:
                    # No calls from here to the last store: a KeyboardInterrupt cannot come in between.
                    self._view[start:end] = packed
                    self._ts = ts
                    self._offset = end
                    self._head += 1
                    if levelno > self._extent_level:
                        self._extent_level = levelno
                    self._words[self._end_word] = end
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
        """Take a record that the fast packer refused: with surrogates in its texts, or with fields that are no data."""
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

    def _make_room(self, ts: int, levelno: int, size: int) -> bool:
        """See to it that so many bytes fit into the current piece; False where this level must not have them.

        While no other piece is left, the second half of this one is kept for WARNING and above.
        """
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
        self._view[start:end] = packed
        self._ts = ts
        self._offset = end
        self._head += 1
        if levelno > self._extent_level:
            self._extent_level = levelno
        self._words[self._end_word] = end
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
        if self._head > self._extent_first:
            self._close_extent()
        index = min(self._free)
        base = self._file.base(index)
        # In the order in which a reader of a half-written header finds no records; see `tlogs.outbox.ring`.
        self._words[base // 8 + END_INDEX] = 0
        self._view[base : base + PIECE_HEADER_BYTES] = pack_piece_header(base, self._head)
        self._free.remove(index)
        self._used.append((index, self._head))
        self._begin(index)

    def _begin(self, index: int) -> None:
        base = self._file.base(index)
        self._base, self._end_word = base, base // 8 + END_INDEX
        self._offset = self._extent_start = base + PIECE_HEADER_BYTES
        self._stop = base + self._file.piece
        self._half = self._offset + (self._file.piece - PIECE_HEADER_BYTES) // 2
        self._extent_first, self._extent_level = self._head, 0
        self._set_limit()

    def _close_extent(self) -> None:
        """What has been written since the last extent is one."""
        start, end = self._extent_start, self._offset
        count, view = self._head - self._extent_first, self._view[start:end]
        extent = Extent(self._extent_first, count, self._extent_level, self._first_ts(), self._ts, view)
        # Without a call, so that a signal comes before all of it or after all of it; its handler may have been here.
        if self._extent_start == start and self._offset == end:
            self._extents.waiting += (extent,)
            self._extent_start = end
            self._extent_first = extent.first + count
            self._extent_level = 0

    def _first_ts(self) -> int:
        """The time of the open extent's first record, which stands in the record itself."""
        return int.from_bytes(self._view[self._extent_start + 2 : self._extent_start + HEAD_BYTES], "big")

    # What a full outbox leaves out.

    def _drop(self, levelno: int) -> None:
        self._drops.count(levelno)
        self._limit = 0
        self._file.store_dropped(self._drops.total)

    def _write_gap(self, ts: int, gap: bytes) -> None:
        self._drops.untold = {}
        self._write(ts, WARNING, gap)

    # The forwarder's side.

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

    def cut(self, close_open: bool) -> Extent | None:
        """The next extent that was not handed out; with *close_open* also what would not fill one yet."""
        with self._inside():
            if self._closed:
                return None
            if close_open and not self._extents.waiting and self._head > self._extent_first:
                self._close_extent()
                self._set_limit()
            return self._extents.take()

    def rewind(self, watermark: int) -> None:
        """Hand out again from this number on, in the extents that were cut before; one that it falls into is split.

        Raises:
            ProtocolError: it names a record that was never written.
        """
        with self._inside():
            self._check(watermark)
            if self._closed:
                return
            if watermark > self._extent_first:
                self._close_extent()
                self._set_limit()
            self._extents.rewind(watermark)

    def acknowledge(self, watermark: int) -> None:
        """Let go of what stands below this number; a lower one than before changes nothing.

        Raises:
            ProtocolError: it names a record that was never written.
        """
        with self._inside():
            self._check(watermark)
            if watermark <= self._acknowledged or self._closed:
                return
            self._file.store_acknowledged(watermark)
            self._acknowledged = watermark
            self._extents.release(watermark)
            while len(self._used) > 1 and self._used[1][1] <= watermark:
                self._free.append(self._used.popleft()[0])
            if watermark == self._head and self._offset - self._base > min(RESTART_BYTES, self._file.piece // 4):
                self._words[self._end_word] = 0
                self._view[self._base : self._base + PIECE_HEADER_BYTES] = pack_piece_header(self._base, self._head)
                self._used[0] = (self._used[0][0], self._head)
                self._begin(self._used[0][0])
            self._tell_dropped(0)
            self._set_limit()

    def _check(self, watermark: int) -> None:
        if watermark > self._head:
            raise ProtocolError(f"acknowledged below {watermark}, but the stream has only {self._head} records")

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

    def close(self, *, delete: bool) -> None:
        """Take nothing more and give the file up; without *delete* it is left for whoever recovers it."""
        with self._inside():
            if not self._closed:
                self._tell_dropped(WARNING)
                self._shut()
                self._file.close(delete=delete)

    def abandon(self) -> None:
        """In a forked child: let go of the parent's outbox, which stays as it is."""
        self._unlock()  # the thread that held the parent's lock may not exist here
        if not self._closed:
            self._shut()
            self._file.forget()

    def _shut(self) -> None:
        self._closed, self._limit = True, 0
        self._extents = Extents()
        self._extent_start, self._extent_first = self._offset, self._head

    @property
    def path(self) -> str:
        """The path of the file."""
        return self._file.path

    @property
    def head(self) -> int:
        """The number that the next record gets."""
        return self._head

    @property
    def acknowledged(self) -> int:
        """The number below which everything is stored elsewhere."""
        return self._acknowledged

    @property
    def first(self) -> int:
        """The number of the oldest record that is held."""
        return self._acknowledged

    @property
    def dropped(self) -> dict[int, int]:
        """How many records of each level were dropped since the stream began."""
        with self._inside():
            return dict(self._drops.total)

    @property
    def unsent_bytes(self) -> int:
        """The size of what was not handed out yet."""
        with self._inside():
            return self._extents.waiting_bytes + self._offset - self._extent_start

    @property
    def oldest_unsent_ts(self) -> int | None:
        """The time of the oldest record that was not handed out, None where there is none."""
        with self._inside():
            if self._extents.waiting:
                return self._extents.waiting[0].first_ts
            return None if self._head == self._extent_first else self._first_ts()

    @property
    def low_ts(self) -> int:
        """A time before which no record will follow."""
        with self._inside():
            self._ts = max(self._ts, self._clock())
            return self._ts


def _pack_surrogates(values: Sequence[Any]) -> bytes:
    return bytes(msgpack.packb(values, unicode_errors="surrogatepass"))
