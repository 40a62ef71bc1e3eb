"""Runs in a local directory, each a directory of its own. See `tlogs_collector.store.store` for how a store is used.

The names of its files are in `tlogs_shared.storage.layout`. Nothing in it refers to a place outside, so it can be
copied, moved or packed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from tlogs_collector.store.disk import Disk, LocalDisk
from tlogs_collector.store.local.retention import remove_run, shrink
from tlogs_collector.store.local.run_directory import RunDirectory
from tlogs_collector.store.local.segment_reader import open_segment
from tlogs_collector.store.local.whole_file import read_whole
from tlogs_collector.store.store import RunBusy, StoredRun
from tlogs_shared.errors import StoreError
from tlogs_shared.origin import StreamInfo
from tlogs_shared.storage.batch import Header
from tlogs_shared.storage.layout import (
    CONTROL_FILE,
    LOCK_FILE,
    RUN_FILE,
    RUN_NAME_RULE,
    holds_run,
    is_run_name,
    parse_name,
    segment_name,
)
from tlogs_shared.storage.position import Position
from tlogs_shared.storage.segment import frame_end

__all__ = ["LocalStore"]

SEGMENT_BYTES: Final = 64 << 20
"""Large enough that files stay few, small enough that removing one frees little more than is needed."""

MAX_RUN_BYTES: Final = 20 * 10**9
KEEP_FREE: Final = 0.05
"""The part of a file system that is left to others; the same that ext4 keeps for root."""

_ROOM_BYTES: Final = 16 << 20
"""With less free than this, an append is not tried again: it would fill the disk for everybody else too."""

_AGE_CHECK_S: Final = 60.0
_LOCK_TRIES: Final = 10
_LOCK_PAUSE_S: Final = 0.02
"""A reader that checks whether the run is live holds the lock for an instant."""


class LocalStore:
    """A directory of runs; several daemons may share it, each run has one owner at a time.

    `max_bytes` bounds a run, `keep_free` is the part of the file system that stays free, `retain_s` the age in
    seconds at which a run that nobody writes is removed (None: never).

    Raises:
        StoreError: the directory cannot be made or written.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        disk: Disk | None = None,
        segment_bytes: int = SEGMENT_BYTES,
        max_bytes: int = MAX_RUN_BYTES,
        keep_free: float = KEEP_FREE,
        retain_s: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.directory = os.path.abspath(directory)
        self._disk: Disk = disk or LocalDisk()
        self._segment_bytes = segment_bytes
        self._max_bytes = max_bytes
        self._keep_free = keep_free
        self._retain_s = retain_s
        self._clock = clock
        self._age_checked = float("-inf")
        self._runs: dict[str, RunDirectory] = {}
        self._written = 0
        self._lock = threading.Lock()
        """Guards the runs' state; held while a frame is written, never while the disk is waited for."""
        self._syncing = threading.Lock()
        """Held while files may be synced, replaced or closed; taken before `_lock`."""
        with _store_errors(self.directory):
            self._disk.make_directory(self.directory)
            probe = f"{self.directory}/.probe-{os.getpid()}"
            self._disk.close(self._disk.create(probe))
            self._disk.unlink(probe)

    @property
    def written(self) -> int:
        """How many frames have been appended, to all runs together."""
        return self._written

    def open_run(self, name: str, meta: Mapping[str, Any]) -> StoredRun:
        """Begin a run, or continue it where it exists. See `Store.open_run`."""
        run = self._runs.get(name)
        if run is not None:
            with _store_errors(run.path), self._syncing:
                if run.failed is None:
                    self._flush(run)  # what the result counts is synced, here too
                else:
                    with self._lock:
                        run.reload()
            return run.stored
        path = self._path(name)
        with _store_errors(path):
            if not self._disk.is_directory(path):
                self._disk.make_directory(path)
                self._disk.sync_directory(self.directory)
            run = RunDirectory(self._disk, path, name, self._take_lock(path), self._segment_bytes)
            try:
                run.load(meta)
            except BaseException:
                run.close()
                raise
        with self._lock:
            self._runs[name] = run
        return run.stored

    def _take_lock(self, path: str) -> int:
        for attempt in range(_LOCK_TRIES):
            if attempt:
                time.sleep(_LOCK_PAUSE_S)
            lock = self._disk.lock(f"{path}/{LOCK_FILE}")
            if lock is not None:
                owner = json.dumps({"pid": os.getpid(), "host": platform.node()})
                with contextlib.suppress(OSError):  # only told to others; a full disk must not keep the run closed
                    self._disk.truncate(lock, 0)
                    self._disk.write(lock, [owner.encode()])
                return lock
        try:
            owner_map = json.loads(read_whole(self._disk, f"{path}/{LOCK_FILE}"))
            owner = f"process {owner_map['pid']} on {owner_map['host']}"
        except (OSError, ValueError, KeyError, TypeError):
            owner = "another process"
        raise RunBusy(errno.EBUSY, f"the run is open in {owner}; stop that collector, or choose another --run", path)

    def append(self, run: str, header: Header, payload: bytes) -> None:
        """Store a batch. See `Store.append`."""
        with self._lock:
            self._runs[run].append(header, payload)
            self._written += 1

    def put_stream(self, run: str, stream: bytes, info: StreamInfo) -> None:
        """Store what is known of a stream. See `Store.put_stream`."""
        with self._lock:
            self._runs[run].put_stream(stream, info)
            self._written += 1

    def sync(self) -> int:
        """Wait until what has been written is on the disk. See `Store.sync`."""
        with self._syncing:
            with self._lock:
                covered = self._written
                runs = list(self._runs.values())
            for run in runs:
                if run.failed is None:
                    with contextlib.suppress(OSError):  # raised below, after the other runs have had their turn
                        self._flush(run)
            for run in runs:
                if run.failed is not None:
                    raise run.failure()
        return covered

    def _flush(self, run: RunDirectory) -> None:
        with self._lock:
            work = run.unsynced()
        try:
            run.flush(work)
        except OSError as error:
            with self._lock:
                run.fail(error)
            raise run.failure() from error
        with self._lock:
            run.settle()

    def retain(self) -> bool:
        """Make room where a bound asks for it, one step. See `Store.retain`."""
        with self._syncing, _store_errors(self.directory):
            self._remove_old_runs()
            with self._lock:
                runs = sorted(self._runs.values(), key=lambda run: run.stored.bytes, reverse=True)
            space = self._disk.space(self.directory)
            crowded = space.available < self._keep_free * space.total
            for run in runs:
                over = run.stored.bytes > self._max_bytes
                if (over or crowded) and run.failed is None and shrink(run, self._lock, self._flush):
                    return True
        return False

    def _remove_old_runs(self) -> None:
        now = self._clock()
        if self._retain_s is None or now - self._age_checked < _AGE_CHECK_S:
            return
        self._age_checked = now
        for name in self.runs():
            if name not in self._runs:
                remove_run(self._disk, self._path(name), now - self._retain_s)

    def room(self) -> bool:
        """Whether an append that failed for want of space is worth another try."""
        with _store_errors(self.directory):
            return self._disk.space(self.directory).available >= _ROOM_BYTES

    def end(self, run: str) -> Position:
        """The end of the run's last complete frame."""
        with self._lock:
            return self._runs[run].end

    def index(self, run: str, position: Position, limit: int) -> tuple[list[tuple[Header, Position]], Position]:
        """At most *limit* frames from *position* on. See `Store.index`."""
        path = self._path(run)
        found: list[tuple[Header, Position]] = []
        with _store_errors(path):
            for number in self._segments(path):
                if number < position.segment:
                    continue
                # FileNotFoundError: it was removed since it was listed.
                with contextlib.suppress(FileNotFoundError), open_segment(self._disk, path, number) as reader:
                    for header, place in reader.place(
                        reader.scan(position.offset if number == position.segment else 0)
                    ):
                        if len(found) == limit:
                            return found, position
                        found.append((header, place))
                        position = frame_end(header, place)
        return found, position

    def read(self, run: str, segment: int, offset: int, size: int) -> bytes:
        """Bytes of a segment. See `Store.read`."""
        path = self._path(run)
        with _store_errors(f"{path}/{segment_name(segment)}"), open_segment(self._disk, path, segment) as reader:
            return reader.read(size, offset)

    def append_control(self, run: str, line: Mapping[str, Any]) -> None:
        """Add a line to the run's control journal; the next sync covers it."""
        directory = self._runs[run]
        with self._lock, _store_errors(f"{directory.path}/{CONTROL_FILE}"):
            directory.append_control(line)

    def read_control(self, run: str) -> list[dict[str, Any]]:
        """The lines of the run's control journal; malformed lines (e.g. a partial last one) are skipped."""
        path = f"{self._path(run)}/{CONTROL_FILE}"
        found = []
        with _store_errors(path):
            try:
                # After the last newline there is at most a partial line.
                lines = read_whole(self._disk, path).split(b"\n")[:-1]
            except FileNotFoundError:
                return []
        for line in lines:
            with contextlib.suppress(ValueError):
                values = json.loads(line)
                if isinstance(values, dict):
                    found.append(values)
        return found

    def run_meta(self, run: str) -> Mapping[str, Any]:
        """The metadata of an open run."""
        return self._runs[run].stored.meta

    def set_meta(self, run: str, meta: Mapping[str, Any]) -> None:
        """Replace the run's metadata."""
        directory = self._runs[run]
        with _store_errors(f"{directory.path}/{RUN_FILE}"):
            directory.set_meta(meta)

    def runs(self) -> list[str]:
        """The names of the runs that are there."""
        with _store_errors(self.directory):
            return sorted(name for name in self._disk.names(self.directory) if self._is_run(name))

    def close_run(self, run: str) -> None:
        """Sync and close a run. See `Store.close_run`."""
        with self._syncing:
            directory = self._runs[run]
            try:
                if directory.failed is None:
                    self._flush(directory)
            finally:
                with self._lock:
                    del self._runs[run]
                    directory.close()

    def close(self) -> None:
        """Sync and close every run."""
        with contextlib.ExitStack() as stack:
            for run in list(self._runs):
                stack.callback(self.close_run, run)

    def _path(self, run: str) -> str:
        # A name comes from a rank; none may lead out of the directory.
        if not is_run_name(run):
            raise StoreError(errno.EINVAL, f"no name for a run: expected {RUN_NAME_RULE}", run[:140])
        return f"{self.directory}/{run}"

    def _is_run(self, name: str) -> bool:
        path = f"{self.directory}/{name}"
        if not is_run_name(name) or not self._disk.is_directory(path):
            return False
        try:
            names = self._disk.names(path)
        except OSError:
            return False  # another user's, or removed meanwhile
        return holds_run(names)

    def _segments(self, path: str) -> list[int]:
        return sorted(number for name in self._disk.names(path) if (number := parse_name(name)) is not None)


@contextlib.contextmanager
def _store_errors(path: str) -> Iterator[None]:
    """Make a StoreError of what the disk raises."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(error.errno, error.strerror or str(error), error.filename or path) from error
