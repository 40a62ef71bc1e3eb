"""What several tests of the client need: runs on disk, as a collector stores them."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tlogs_shared.origin import Origin, StreamInfo
from tlogs_shared.storage.batch import Header, seal
from tlogs_shared.storage.layout import segment_name
from tlogs_shared.storage.record import Fields, pack
from tlogs_shared.storage.segment import SegmentHeader, pack_stream

START_NS = 1_700_000_000_000_000_000


class RunWriter:
    """A run that a test writes, frame by frame. Times are milliseconds after `START_NS`."""

    def __init__(self, path: Path, created_ns: int = START_NS) -> None:
        self.path = path
        path.mkdir(parents=True)
        (path / "run.json").write_text(json.dumps({"name": path.name, "created_ns": created_ns}))
        self._segment = path / segment_name(1)
        self._segment.write_bytes(SegmentHeader(path.name, 1).pack())
        self._next: dict[bytes, int] = {}

    def stream(self, rank: int | None = 0, number: int | None = None, **changed: Any) -> bytes:
        """Describe a stream; *changed* are attributes of its origin or of what is known of it."""
        stream = (200 if rank is None else rank if number is None else number).to_bytes(16, "big")
        of_origin = {name: changed.pop(name) for name in list(changed) if name in Origin.__dataclass_fields__}
        origin = Origin(**{"host": "n1", "pid": 1000 + (rank or 0), "rank": rank, "world_size": 4, **of_origin})
        self.append(*pack_stream(stream, StreamInfo(origin, **changed), self._next.get(stream, 0)))
        return stream

    def batch(self, stream: bytes, *records: tuple[int, str], skip: int = 0, **changed: Any) -> None:
        """Store records, each given as its time and text; *changed* are fields that they have in common."""
        first = self._next.get(stream, 0) + skip
        found = [
            Fields(
                START_NS + ms * 1_000_000, 20, "train", text, None, None, "train.py", 7, "main", "MainThread", None
            )._replace(**changed)
            for ms, text in records
        ]
        header = Header(
            stream=stream,
            level=max(record.levelno for record in found),
            first=first,
            count=len(found),
            first_ts=found[0].ts,
            last_ts=found[-1].ts,
            low_ts=found[-1].ts,
        )
        self._next[stream] = first + len(found)
        self.append(*seal(header, b"".join(map(pack, found)), zstandard.ZstdCompressor()))

    def append(self, header: Header, payload: bytes) -> None:
        """Store a frame."""
        with self._segment.open("ab") as file:
            file.write(header.pack() + payload)

    @contextmanager
    def live(self) -> Iterator[None]:
        """Hold the run as a daemon does."""
        lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


@pytest.fixture
def new_run(tmp_path: Path) -> Callable[..., RunWriter]:
    """Makes a run by name, in the directory `runs` of the test's own."""

    def make(name: str = "run1", created_ns: int = START_NS) -> RunWriter:
        return RunWriter(tmp_path / "runs" / name, created_ns)

    return make
