"""Where runs are kept: what the server needs of a store, whatever it is made of.

Theory of operation
-------------------
Two threads use a store. The loop's thread calls everything but `sync` and `retain`; a second thread calls these two,
over and over. A batch may be acknowledged once a `sync` has returned a number that is not below `written` as it was
right after the batch was appended::

    store.append(run, header, payload)
    due = store.written          # acknowledge when sync() has returned due or more

A failed `append` has stored nothing of its frame; the same frame may be appended again later. A failed `sync` is
final for what it should have covered: the kernel may have thrown those pages away, and a second try would succeed
without them. So the store forgets them too. The run refuses everything until `open_run` is called for it again, which
gives the watermarks back as they were at the last good sync. Nothing beyond was acknowledged, so the ranks still have
it and send it once more, as after a restart of the collector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tlogs_shared.errors import StoreError
from tlogs_shared.origin import StreamInfo
from tlogs_shared.storage.batch import Header
from tlogs_shared.storage.position import Position

__all__ = ["RunBusy", "RunFailed", "Store", "StoredRun", "StoredStream"]


class RunBusy(StoreError):
    """Another live daemon has the run open; the text names its process and host."""


class RunFailed(StoreError):
    """A sync of the run failed; `run` is its name. It takes nothing more until `open_run` is called for it again."""

    run: str = ""


@dataclass(slots=True)
class StoredStream:
    """The stored state of one stream; kept up to date by the store.

    Every number below `watermark` has been stored; `records` are there now, without what was removed or damaged.
    """

    info: StreamInfo
    watermark: int = 0
    records: int = 0


@dataclass(slots=True)
class StoredRun:
    """An open run. `meta` is what run.json holds; `notes` what opening it found wrong, one line each."""

    name: str
    meta: dict[str, Any]
    streams: dict[bytes, StoredStream] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    bytes: int = 0
    removed: int = 0
    """Records that were taken out to save space."""


class Store(Protocol):
    """The local directory is one, see `tlogs_collector.store.local.local_store`."""

    @property
    def written(self) -> int:
        """How many frames have been appended, to all runs together."""

    def open_run(self, name: str, meta: Mapping[str, Any]) -> StoredRun:
        """Begin a run, or continue it where it exists; *meta* is used for what is not stored yet.

        Everything that the result counts is synced.

        Raises:
            RunBusy: another live daemon has it open.
            StoreError: it cannot be read or written.
        """

    def append(self, run: str, header: Header, payload: bytes) -> None:
        """Store a batch of a stream that `put_stream` has named.

        Raises:
            StoreError: nothing of it is stored; `errno` tells why. RunFailed: open the run again.
        """

    def put_stream(self, run: str, stream: bytes, info: StreamInfo) -> None:
        """Store what is known of a stream; the last one holds, from the stream's first record on.

        Raises:
            StoreError: as `append`.
        """

    def sync(self) -> int:
        """Wait until what has been written is on the disk, and return the `written` that this covers.

        Raises:
            RunFailed: a run could not be synced, at each call until that run is opened again or closed.
        """

    def retain(self) -> bool:
        """Make room where a bound asks for it, one step; return True if there may be more to do.

        Raises:
            StoreError: nothing could be removed.
        """

    def room(self) -> bool:
        """Whether an append that failed for want of space is worth another try."""

    def end(self, run: str) -> Position:
        """The end of the run's last complete frame."""

    def index(self, run: str, position: Position, limit: int) -> tuple[Sequence[tuple[Header, Position]], Position]:
        """At most *limit* frames from *position* on, each with its own position, and the position to go on from.

        Raises:
            StoreError: the run cannot be read.
        """

    def read(self, run: str, segment: int, offset: int, size: int) -> bytes:
        """Bytes of a segment as they are stored; fewer than *size* where it ends.

        Raises:
            StoreError: the segment is not there any more, or cannot be read.
        """

    def append_control(self, run: str, line: Mapping[str, Any]) -> None:
        """Add a line to the run's control journal.

        Raises:
            StoreError: it is not stored.
        """

    def read_control(self, run: str) -> list[dict[str, Any]]:
        """The lines of the run's control journal.

        Raises:
            StoreError: it cannot be read.
        """

    def run_meta(self, run: str) -> Mapping[str, Any]:
        """The metadata of an open run."""

    def set_meta(self, run: str, meta: Mapping[str, Any]) -> None:
        """Replace the run's metadata, whole.

        Raises:
            StoreError: the old one still holds.
        """

    def runs(self) -> list[str]:
        """The names of the runs that are there, open or not.

        Raises:
            StoreError: they cannot be listed.
        """

    def close_run(self, run: str) -> None:
        """Sync and close a run; another daemon may open it then. It is closed also where this raises.

        Raises:
            StoreError: the last of it could not be synced.
        """

    def close(self) -> None:
        """Sync and close every run.

        Raises:
            StoreError: as `close_run`.
        """
