"""A segment of a run, opened through the store's disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from tlogs_collector.store.disk import Disk
from tlogs_shared.storage.layout import segment_name
from tlogs_shared.storage.segment_reader import SegmentReader

__all__ = ["open_segment"]


@contextmanager
def open_segment(disk: Disk, directory: str, number: int) -> Iterator[SegmentReader]:
    """Open a segment for reading; it is closed at the end of the block.

    Raises:
        OSError: it is not there, or cannot be read.
    """
    file = disk.open(f"{directory}/{segment_name(number)}")
    try:
        yield SegmentReader(number, partial(disk.read, file), partial(disk.size, file))
    finally:
        disk.close(file)
