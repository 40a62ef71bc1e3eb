"""A run as readers see it, wherever it is stored.

`tlogs.reading.local_run` reads a run's directory, `tlogs.reading.collector_run` asks the collector that has it. Both
give the same frames. Positions are theirs: a reader keeps them and compares them, and looks into none.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from tlogs.reading.verify import Verification
from tlogs_shared.errors import MessageError, StoreError
from tlogs_shared.origin import StreamInfo
from tlogs_shared.storage.batch import Header
from tlogs_shared.storage.position import START, Position
from tlogs_shared.storage.segment import unpack_stream

__all__ = ["Run", "describe", "end_of"]


class Run(Protocol):
    """A run that can be read, and read on while it grows."""

    @property
    def name(self) -> str:
        """The run's name."""

    @property
    def path(self) -> Path | None:
        """The run's directory, None where it cannot be reached from here."""

    @property
    def created_ns(self) -> int:
        """When the run began, 0 where that is not known."""

    def is_called(self, text: str, /) -> bool:
        """Whether *text* is a name of this run."""

    def is_live(self) -> bool:
        """Whether more may come."""

    def frames(self, position: Position = START, /) -> Iterable[tuple[Header, Position]]:
        """The frames from *position* on, that one included, each with its own; payloads are not read.

        Raises:
            StoreError: the run cannot be read.
        """

    def payload(self, header: Header, position: Position, /) -> bytes:
        """The payload of the frame at *position*.

        Raises:
            MessageError: it is damaged.
            StoreError: the run has been removed.
        """

    def size(self) -> int:
        """How many bytes the run takes where it is stored."""

    def removed(self) -> int:
        """How many records were stored and taken out again to save space, as far as that is known."""

    def verify(self) -> Verification:
        """Count again from what is stored, payloads checked, and compare every stream's numbers.

        Raises:
            StoreError: the run cannot be read.
        """


def describe(run: Run, frames: Mapping[bytes, Sequence[tuple[Header, Position]]]) -> dict[bytes, StreamInfo]:
    """Each stream's description, from its last readable stream frame."""
    found = {}
    for stream, described in frames.items():
        for header, position in reversed(described):
            try:
                found[stream] = unpack_stream(header, run.payload(header, position))
                break
            except (MessageError, StoreError):
                continue
    return found


def end_of(run: Run) -> int:
    """The time of the run's newest record in nanoseconds; now where it has no record."""
    return max((header.last_ts for header, _ in run.frames()), default=0) or time.time_ns()
