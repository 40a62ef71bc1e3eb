"""Bounds of the store: what is removed, in which order, and that all of it is counted."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tlogs.reading.local_run import LocalRun
from tlogs.reading.runs import summarize
from tlogs_collector.store.disk import LocalDisk, Space
from tlogs_collector.store.local.local_store import LocalStore
from tlogs_shared.errors import StoreError
from tlogs_shared.origin import Origin, StreamInfo
from tlogs_shared.storage.batch import Header, Kind, seal
from tlogs_shared.storage.position import START
from tlogs_shared.storage.segment import THINNED_BASE, frame_end

A, QUIET = b"a" * 16, b"q" * 16
INFO = StreamInfo(Origin("node1", 7, rank=3))
RUN = "run"


class CrowdedDisk(LocalDisk):
    """A disk of 1000 bytes for all who ask, of which `available` are free."""

    available = 1000

    def space(self, path: str) -> Space:
        return Space(self.available, 1000)


@pytest.fixture
def disk() -> CrowdedDisk:
    return CrowdedDisk()


@pytest.fixture
def store(tmp_path: Path, disk: CrowdedDisk) -> Iterator[LocalStore]:
    """A store for runs of at most 100 kB in segments of 20 kB, with a run and two streams in it."""
    store = LocalStore(tmp_path, segment_bytes=20_000, max_bytes=100_000, disk=disk)
    store.open_run(RUN, {"name": RUN})
    store.put_stream(RUN, QUIET, INFO)
    store.put_stream(RUN, A, INFO)
    put(store, 0, 7, stream=QUIET)
    yield store
    store.close()


def put(store: LocalStore, first: int, count: int, level: int = 20, stream: bytes = A) -> int:
    header, payload = seal(Header(stream=stream, first=first, count=count, level=level), os.urandom(3000))
    store.append(RUN, header, payload)
    return header.end


def fill(store: LocalStore, batches: int, first: int = 0, warn_every: int = 4) -> int:
    """Append batches of 2 records, every so many a WARNING; keep to the bounds as the second thread does."""
    for index in range(batches):
        first = put(store, first, 2, 30 if index % warn_every == 0 else 10)
        store.sync()
        while store.retain():
            pass
    return first


def kept(path: Path) -> dict[int, list[int]]:
    """Numbers of the records of stream A that are there, by the level of their batch."""
    found: dict[int, list[int]] = {}
    with LocalRun(path) as archive:
        for header, position in archive.frames():
            archive.payload(header, position)
            if header.kind is Kind.BATCH and header.stream == A:
                found.setdefault(header.level, []).extend(range(header.first, header.end))
    return found


def size_on_disk(path: Path) -> int:
    return sum(item.stat().st_size for item in path.glob("segment-*"))


def test_below_the_bound_nothing_is_removed(store: LocalStore, tmp_path: Path) -> None:
    end = fill(store, 15)
    assert sum(map(len, kept(tmp_path / RUN).values())) == end
    assert not (tmp_path / RUN / "ledger.json").exists()


def test_records_below_warning_go_first_the_oldest_before_others(store: LocalStore, tmp_path: Path) -> None:
    fill(store, 40)
    found = kept(tmp_path / RUN)
    assert found[30] == [number for index in range(0, 40, 4) for number in (2 * index, 2 * index + 1)]
    assert 0 < len(found[10]) < 60
    oldest = min(found[10])
    assert found[10] == [n for n in range(oldest, 80) if n // 2 % 4 != 0], "what is left is the newest"
    assert size_on_disk(tmp_path / RUN) <= 100_000 + 20_000


def test_when_only_warnings_are_left_whole_old_segments_go(store: LocalStore, tmp_path: Path) -> None:
    end = fill(store, 400)
    path = tmp_path / RUN
    found = kept(path)
    assert min(found[30]) > 0
    assert max(max(numbers) for numbers in found.values()) == end - 1
    assert size_on_disk(path) <= 100_000 + 20_000


def test_what_was_removed_counts_as_removed_and_not_as_lost(store: LocalStore, tmp_path: Path) -> None:
    for batches in (40, 100, 200):
        stored = store.open_run(RUN, {})
        end = fill(store, batches, stored.streams[A].watermark if A in stored.streams else 0)
        with LocalRun(tmp_path / RUN) as archive:
            counts = summarize(archive)
            assert counts.removed == stored.removed > 0
            assert counts.records == sum(stream.records for stream in stored.streams.values())
            assert counts.records + counts.removed == end + 7
            assert counts.lost == 0
            assert archive.verify().is_sound, archive.verify().notes
        by_level = json.loads((tmp_path / RUN / "ledger.json").read_text())
        assert by_level["dropped"].keys() <= {"10", "20", "30"}


def test_a_restart_knows_streams_whose_records_are_all_gone(store: LocalStore, tmp_path: Path) -> None:
    """Else the numbers of a quiet rank would begin at 0 again."""
    end = fill(store, 400)
    before = store.open_run(RUN, {})
    store.close()
    again = LocalStore(tmp_path, segment_bytes=20_000, max_bytes=100_000)
    stored = again.open_run(RUN, {})
    assert stored.notes == []
    assert (stored.streams[QUIET].watermark, stored.streams[QUIET].records) == (7, 0)
    assert (stored.streams[A].watermark, stored.streams[QUIET].info) == (end, INFO)
    assert (stored.streams, stored.removed) == (before.streams, before.removed)
    assert stored.bytes == size_on_disk(tmp_path / RUN)
    again.close()


def test_a_nearly_full_file_system_is_relieved_also_below_the_bound(
    store: LocalStore, disk: CrowdedDisk, tmp_path: Path
) -> None:
    end = fill(store, 15)
    disk.available = 49
    assert store.retain()
    disk.available = 51
    assert not store.retain()
    assert sum(map(len, kept(tmp_path / RUN).values())) < end


def test_the_segment_that_is_written_is_never_touched(store: LocalStore, disk: CrowdedDisk, tmp_path: Path) -> None:
    disk.available = 0
    first = 0
    for _ in range(3):
        first = put(store, first, 2, 10)
    store.sync()
    assert not store.retain()
    assert kept(tmp_path / RUN) == {10: list(range(6))}


def test_a_reader_in_a_segment_that_is_thinned_misses_nothing_that_is_left(store: LocalStore, tmp_path: Path) -> None:
    with LocalRun(tmp_path / RUN) as slow:
        first = 0
        for index in range(15):
            first = put(store, first, 2, 30 if index % 2 else 10)
        position = START
        seen: list[int] = []
        for header, place in list(slow.frames())[:4]:
            position = frame_end(header, place)
            seen.append(header.end)
        fill(store, 40, first)
        rest = [(header, place) for header, place in slow.frames(position) if header.kind is Kind.BATCH]
        assert rest[0][1].offset > THINNED_BASE
        assert {header.first for header, _ in rest if header.level == 30 and header.stream == A} >= {
            number for number in kept(tmp_path / RUN)[30][::2] if number >= max(seen)
        }
        for header, place in rest:
            assert slow.payload(header, place)
        page, _ = store.index(RUN, position, 10**6)
        assert [item for item in page if item[0].kind is Kind.BATCH] == rest


def test_a_payload_that_was_thinned_away_is_said_to_be_gone(store: LocalStore, tmp_path: Path) -> None:
    put(store, 0, 2, 10)
    with LocalRun(tmp_path / RUN) as archive:
        header, position = [item for item in archive.frames() if item[0].stream == A][-1]
    fill(store, 40, 2)
    with LocalRun(tmp_path / RUN) as archive, pytest.raises(StoreError, match="removed to save space"):
        archive.payload(header, position)
    with pytest.raises(StoreError) as caught:
        store.read(RUN, position.segment, position.offset, 10)
    assert caught.value.errno == errno.ENOENT


def test_a_reader_that_has_the_old_file_open_finishes_it(store: LocalStore, tmp_path: Path) -> None:
    for index in range(10):
        put(store, 2 * index, 2, 10)
    with LocalRun(tmp_path / RUN) as archive:
        frames = archive.frames()
        first = next(frames)
        fill(store, 40, 20)
        rest = [first, *frames]
        numbers = [header.first for header, _ in rest if header.kind is Kind.BATCH and header.stream == A]
        assert numbers[:3] == [0, 2, 4]
        assert numbers == sorted(numbers)


def test_old_runs_go_whole_but_never_a_live_one(tmp_path: Path) -> None:
    clock = [1_000_000.0]
    for name in ("old", "young", "live", "mine"):
        store = LocalStore(tmp_path)
        store.open_run(name, {})
        store.append_control(name, {})
        store.close()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    for name, age in (("old", 100), ("young", 10), ("live", 100), ("mine", 100)):
        for item in (tmp_path / name).iterdir():
            os.utime(item, (clock[0] - age, clock[0] - age))
    other = LocalStore(tmp_path)
    other.open_run("live", {})
    for item in (tmp_path / "live").iterdir():
        os.utime(item, (clock[0] - 100, clock[0] - 100))

    store = LocalStore(tmp_path, retain_s=50, clock=lambda: clock[0])
    store.retain()
    assert store.runs() == ["live", "young"]
    assert sorted(item.name for item in (tmp_path / "mine").iterdir()) == ["notes.txt"]
    assert not (tmp_path / "old").exists()
    clock[0] += 61
    store.retain()
    assert store.runs() == ["live"]
    other.close()
