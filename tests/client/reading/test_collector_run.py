"""A run that is read over a connection."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from tlogs.reading.collector_run import CollectorRun, Connection
from tlogs.reading.cursor import Cursor
from tlogs.reading.local_run import LocalRun
from tlogs.reading.runs import summarize
from tlogs_shared.end import FINISHED, End
from tlogs_shared.errors import MessageError
from tlogs_shared.storage.batch import Header
from tlogs_shared.storage.position import Position
from tlogs_shared.storage.segment import frame_end

NewRun = Callable[..., Any]


class Collector:
    """A collector that has one run, seen over a connection; it answers from the run's files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fetched = 0
        self.page_bytes = 1 << 30

    def fetch(self, run: str, segment: int, offset: int, size: int) -> bytes:
        self.fetched += 1
        data = next(self.path.glob("segment-*")).read_bytes()
        return data[offset : offset + min(size, self.page_bytes)]

    def index(self, run: str, position: Position) -> tuple[list[tuple[Header, Position]], Position]:
        with LocalRun(self.path) as archive:
            found = list(archive.frames(position))[:2]
        return found, frame_end(*found[-1]) if found else position


def run_of(collector: Collector) -> CollectorRun:
    return CollectorRun(
        cast(Connection, collector),
        {
            "name": "run1",
            "created_ns": 1,
            "live": False,
            "over": True,
            "ranks": 0,
            "records": 0,
            "dropped": 0,
            "lost": 0,
        },
    )


@pytest.mark.parametrize("page_bytes", [1 << 30, 100])
def test_over_a_connection_the_same_records_are_read(new_run: NewRun, page_bytes: int) -> None:
    run = new_run()
    streams = [run.stream(rank) for rank in range(3)]
    for ms in range(0, 100, 10):
        for rank, stream in enumerate(streams):
            run.batch(stream, (ms + rank, f"{rank}:{ms}"), (ms + rank + 5, f"{rank}:{ms}+"))
    collector = Collector(run.path)
    collector.page_bytes = page_bytes
    there = [entry for found in Cursor(run_of(collector)).whole() for entry in found]
    here = [entry for found in Cursor(LocalRun(run.path)).whole() for entry in found]
    assert [entry[:3] + entry[4:] for entry in there] == [entry[:3] + entry[4:] for entry in here]
    if page_bytes > 1000:
        assert collector.fetched < 5, "one page holds many batches"


def test_a_page_that_is_not_there_any_more_is_no_endless_question(new_run: NewRun) -> None:
    source = run_of(Collector(new_run().path))
    with pytest.raises(MessageError, match="no more of segment 1"):
        source.payload(Header(bytes(16), size=100), Position(1, 1 << 20))


def test_over_a_connection_the_same_is_counted(new_run: NewRun) -> None:
    run = new_run()
    stream = run.stream(0, dropped={10: 3}, head=9, end=End(FINISHED))
    run.batch(stream, (0, "a"), (1, "b"))
    run.batch(stream, (2, "c"), skip=2)
    there, here = summarize(run_of(Collector(run.path))), summarize(LocalRun(run.path))
    for name in ("name", "start_ns", "end_ns", "ranks", "records", "dropped", "lost"):
        assert getattr(there, name) == getattr(here, name)
    assert there.path is None
    assert 0 < there.bytes < here.bytes


def test_over_a_connection_damage_is_found(new_run: NewRun) -> None:
    run = new_run()
    run.batch(run.stream(0), (0, "a"), (1, "b"))
    assert run_of(Collector(run.path)).verify().is_sound
    segment = next(run.path.glob("segment-*"))
    data = bytearray(segment.read_bytes())
    data[-1] ^= 1
    segment.write_bytes(data)
    found = run_of(Collector(run.path)).verify()
    assert not found.is_sound
    assert "a payload with a wrong checksum" in found.notes[0]
