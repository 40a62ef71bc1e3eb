"""The store in a local directory: what is appended is there, whatever the disk and the operator do."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlogs.reading.cursor import Cursor
from tlogs.reading.library import LocalLibrary
from tlogs.reading.local_run import LocalRun
from tlogs.reading.runs import summarize
from tlogs_collector.store.disk import LocalDisk, Space
from tlogs_collector.store.local.local_store import LocalStore
from tlogs_collector.store.store import RunBusy, RunFailed, Store, StoredRun
from tlogs_shared.end import End
from tlogs_shared.errors import MessageError, StoreError
from tlogs_shared.origin import Origin, StreamInfo
from tlogs_shared.storage.batch import HEADER_BYTES, Header, Kind, seal
from tlogs_shared.storage.layout import segment_name
from tlogs_shared.storage.position import START, Position
from tlogs_shared.storage.segment import FILE_HEADER_BYTES, frame_end, unpack_stream

A, B = b"a" * 16, b"b" * 16
INFO = StreamInfo(Origin("node1", 7, rank=3))
RUN = "run"
META = {"name": RUN, "created_ns": 5}


class FaultyDisk(LocalDisk):
    """A disk whose next operations of a kind fail: `faults["sync"] = OSError(...)`; `room` bounds what is written."""

    def __init__(self) -> None:
        self.faults: dict[str, OSError] = {}
        self.room: int | None = None
        self.available: int | None = None

    def write(self, file: int, pieces: Sequence[bytes]) -> int:
        if self.room is None:
            return super().write(file, pieces)
        data = b"".join(pieces)[: self.room]
        if not data:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= len(data)
        return super().write(file, [data])

    def truncate(self, file: int, size: int) -> None:
        self._fail("truncate")
        super().truncate(file, size)

    def sync(self, file: int) -> None:
        self._fail("sync")
        super().sync(file)

    def space(self, path: str) -> Space:
        return super().space(path) if self.available is None else Space(self.available, 1000)

    def _fail(self, kind: str) -> None:
        if kind in self.faults:
            raise self.faults[kind]


class Writer:
    """Appends batches whose payload says which records they hold."""

    def __init__(self, store: Store, run: str = RUN) -> None:
        self.store = store
        self.run = run
        self.next: dict[bytes, int] = {}

    def open(self) -> StoredRun:
        stored = self.store.open_run(self.run, META)
        self.next = {stream: item.watermark for stream, item in stored.streams.items()}
        return stored

    def put(self, stream: bytes = A, count: int = 3, size: int = 50, level: int = 20) -> None:
        first = self.next.get(stream, 0)
        if stream not in self.next:
            self.store.put_stream(self.run, stream, INFO)
            self.next[stream] = 0
        header, payload = seal(
            Header(stream=stream, first=first, count=count, level=level),
            f"{first}+{count} ".encode().ljust(max(size, count), b"."),
        )
        self.store.append(self.run, header, payload)
        self.next[stream] = header.end


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    store = LocalStore(tmp_path, segment_bytes=1000)
    yield store
    store.close()


def stored_numbers(path: Path, stream: bytes = A) -> list[int]:
    """The numbers of the records of *stream* that a reader finds, payloads checked."""
    with LocalRun(path) as archive:
        numbers: list[int] = []
        for header, position in archive.frames():
            if header.kind is Kind.BATCH and header.stream == stream:
                assert archive.payload(header, position).startswith(f"{header.first}+{header.count} ".encode())
                numbers += range(header.first, header.end)
        return numbers


def test_what_was_appended_is_read_in_order_and_counted(store: LocalStore, tmp_path: Path) -> None:
    writer = Writer(store)
    stored = writer.open()
    for count in range(1, 20):
        writer.put(A, count)
        writer.put(B, 1)
    assert stored.streams[A].watermark == stored.streams[A].records == 190
    with LocalRun(tmp_path / RUN) as archive:
        assert len(archive.segments()) > 2
        cursor = Cursor(archive)
        cursor.refresh()
        assert cursor.streams == {A: INFO, B: INFO}
        assert (summarize(archive).records, summarize(archive).lost) == (209, 0)
        assert summarize(archive).bytes >= stored.bytes > 0
        assert archive.verify().is_sound
        assert archive.meta == META
    assert stored_numbers(tmp_path / RUN, A) == list(range(190))
    assert stored_numbers(tmp_path / RUN, B) == list(range(19))


def test_a_restart_finds_watermarks_counts_and_what_is_known_of_streams(store: LocalStore, tmp_path: Path) -> None:
    writer = Writer(store)
    writer.open()
    for _ in range(30):
        writer.put()
    known = StreamInfo(
        INFO.origin, attempt=1, head=95, end=End("killed", signal="SIGKILL", ended_ns=7), dropped={10: 3}
    )
    store.put_stream(RUN, A, known)
    store.close()

    again = Writer(LocalStore(tmp_path, segment_bytes=1000))
    stored = again.open()
    assert (stored.notes, stored.meta) == ([], META)
    assert (stored.streams[A].watermark, stored.streams[A].records, stored.streams[A].info) == (90, 90, known)
    again.put()
    again.store.close()
    assert stored_numbers(tmp_path / RUN) == list(range(93))
    with LocalRun(tmp_path / RUN) as archive:
        assert archive.verify().notes == []
        assert (summarize(archive).dropped, summarize(archive).lost) == (3, 2)


def test_each_segment_says_who_its_streams_are(store: LocalStore, tmp_path: Path) -> None:
    """So that one can be read without the others."""
    writer = Writer(store)
    writer.open()
    for index in range(40):
        writer.put(A if index % 3 else B)
    path = tmp_path / RUN
    with LocalRun(path) as archive:
        segments = archive.segments()
        assert len(segments) > 3
        for number in segments:
            known: set[bytes] = set()
            for header, position in archive.frames(Position(number, 0)):
                if position.segment != number:
                    break
                if header.kind is Kind.STREAM:
                    assert unpack_stream(header, archive.payload(header, position)) == INFO
                    known.add(header.stream)
                assert header.stream in known


def test_a_reader_goes_on_where_it_was(store: LocalStore, tmp_path: Path) -> None:
    writer = Writer(store)
    writer.open()
    position = START
    numbers: list[int] = []
    with LocalRun(tmp_path / RUN) as archive:
        for _ in range(30):
            writer.put()
            for header, place in archive.frames(position):
                position = frame_end(header, place)
                if header.kind is Kind.BATCH:
                    numbers += range(header.first, header.end)
        assert position == store.end(RUN)
    assert numbers == list(range(90))


def test_a_remote_reader_gets_the_same_frames_page_by_page(store: LocalStore, tmp_path: Path) -> None:
    writer = Writer(store)
    writer.open()
    for index in range(40):
        writer.put(size=20 * index)
    with LocalRun(tmp_path / RUN) as archive:
        local = list(archive.frames())
        paged: list[tuple[Header, Position]] = []
        position = START
        while True:
            frames, position = store.index(RUN, position, 7)
            if not frames:
                break
            assert len(frames) <= 7
            paged += frames
        assert paged == local
        assert position == store.end(RUN)
        for header, place in paged:
            raw = store.read(RUN, place.segment, place.offset, frame_end(header, place).offset - place.offset)
            assert raw == header.pack() + archive.payload(header, place)
    with pytest.raises(StoreError, match="No such file"):
        store.read(RUN, 999, 0, 1)


def test_an_unfinished_last_frame_is_left_for_later(store: LocalStore, tmp_path: Path) -> None:
    writer = Writer(store)
    writer.open()
    writer.put(size=200)
    writer.put(size=200)
    whole = (tmp_path / RUN / segment_name(1)).read_bytes()
    copy = tmp_path / "copy"
    copy.mkdir()
    for size in range(len(whole)):
        (copy / segment_name(1)).write_bytes(whole[:size])
        with LocalRun(copy) as archive:
            found = [header.first for header, _ in archive.frames() if header.kind is Kind.BATCH]
            assert found == [0, 3][: len(found)]
            assert archive.notes == ["run.json: [Errno 2] No such file or directory: " + repr(str(copy / "run.json"))]


def test_an_open_run_is_refused_to_another_and_the_owner_named(store: LocalStore, tmp_path: Path) -> None:
    store.open_run(RUN, META)
    other = LocalStore(tmp_path)
    with pytest.raises(RunBusy, match=f"process {os.getpid()} on "):
        other.open_run(RUN, META)
    other.open_run("other", {})
    with LocalRun(tmp_path / RUN) as archive:
        assert archive.is_live()
        assert archive.is_live(), "looking must not take the lock away"
    with pytest.raises(RunBusy):
        other.open_run(RUN, META)
    store.close_run(RUN)
    with LocalRun(tmp_path / RUN) as archive:
        assert not archive.is_live()
    other.open_run(RUN, META)
    other.close()


_OWNER = """
import sys
from tlogs_collector.store.local.local_store import LocalStore
from tlogs_shared.storage.batch import Header, seal
from tlogs_shared.origin import Origin, StreamInfo
store = LocalStore(sys.argv[1])
store.open_run("run", {})
store.put_stream("run", b"a" * 16, StreamInfo(Origin("node1", 7)))
first = 0
while True:
    header, payload = seal(Header(stream=b"a" * 16, first=first, count=3), b"%d+3 " % first + b"." * 100_000)
    store.append("run", header, payload)
    first = header.end
    if store.sync() == 5:
        print(first, flush=True)
"""


@pytest.mark.multiprocess
def test_a_killed_owner_leaves_everything_it_synced_and_the_run_is_taken_over(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", _OWNER, str(tmp_path)], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        synced = int(owner.stdout.readline())
        with pytest.raises(RunBusy, match=f"process {owner.pid} on "):
            LocalStore(tmp_path).open_run(RUN, META)
        owner.send_signal(signal.SIGKILL)
    writer = Writer(LocalStore(tmp_path))
    stored = writer.open()
    assert stored.streams[A].watermark >= synced >= 12
    writer.put()
    writer.store.close()
    assert stored_numbers(tmp_path / RUN) == list(range(stored.streams[A].watermark))


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "a" * 129, "ü", "a\n"])
def test_a_name_that_is_no_name_for_a_run_is_refused(store: LocalStore, name: str) -> None:
    with pytest.raises(StoreError, match="no name for a run"):
        store.open_run(name, {})


def test_other_things_in_the_directory_are_passed_over(store: LocalStore, tmp_path: Path) -> None:
    store.open_run("one", {"name": "one", "created_ns": 2})
    store.open_run("two", {"name": "two", "created_ns": 1})
    (tmp_path / "collector.json").write_text("{}")
    (tmp_path / "notes").mkdir()
    (tmp_path / "one" / "notes.txt").write_text("mine")
    assert store.runs() == ["one", "two"]
    assert [run.name for run in LocalLibrary(tmp_path).runs()] == ["one", "two"]
    store.close()
    assert LocalStore(tmp_path).open_run("one", {}).notes == []


def test_a_run_is_private(store: LocalStore, tmp_path: Path) -> None:
    writer = Writer(store)
    writer.open()
    writer.put()
    store.append_control(RUN, {})
    assert (tmp_path / RUN).stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / RUN).iterdir()} == {0o600}


def test_a_run_can_be_moved_copied_and_packed(store: LocalStore, tmp_path: Path) -> None:
    writer = Writer(store)
    writer.open()
    for _ in range(20):
        writer.put()
    store.close()
    away = tmp_path / "elsewhere"
    archive_file = shutil.make_archive(str(tmp_path / "packed"), "tar", tmp_path, RUN)
    shutil.unpack_archive(archive_file, away, filter="data")  # without one, 3.12 warns
    shutil.rmtree(tmp_path / RUN)
    (away / RUN).rename(away / "renamed")
    assert stored_numbers(away / "renamed") == list(range(60))
    moved = Writer(LocalStore(away), "renamed")
    assert moved.open().notes == []
    moved.put()
    moved.store.close()
    with LocalRun(away / "renamed") as archive:
        assert archive.verify().is_sound
        assert summarize(archive).records == 63


def test_control_lines_are_kept_and_half_a_line_spoils_no_other(store: LocalStore, tmp_path: Path) -> None:
    store.open_run(RUN, META)
    assert store.read_control(RUN) == []
    store.append_control(RUN, {"revision": 1})
    store.sync()
    store.close()
    with (tmp_path / RUN / "control.jsonl").open("ab") as file:
        file.write(b'{"revi')
    again = LocalStore(tmp_path)
    again.open_run(RUN, META)
    again.append_control(RUN, {"revision": 2})
    again.append_control(RUN, {"revision": 3})
    assert again.read_control(RUN) == [{"revision": 1}, {"revision": 2}, {"revision": 3}]
    again.close()
    with LocalRun(tmp_path / RUN) as archive:
        assert archive.control() == [{"revision": 1}, {"revision": 2}, {"revision": 3}]


def test_stored_metadata_beats_what_a_restart_brings(store: LocalStore, tmp_path: Path) -> None:
    store.open_run(RUN, META)
    store.set_meta(RUN, {**META, "state": "over"})
    store.close()
    again = LocalStore(tmp_path)
    assert again.open_run(RUN, {"created_ns": 9, "key": "k"}).meta == {**META, "state": "over", "key": "k"}
    again.close()


@settings(max_examples=40)
@given(st.data())
def test_a_half_written_or_damaged_run_json_is_set_aside(data: st.DataObject) -> None:
    with TemporaryDirectory() as directory:
        writer = Writer(LocalStore(directory))
        writer.open()
        writer.put()
        writer.store.close()
        path = Path(directory, RUN, "run.json")
        content = path.read_bytes()
        path.write_bytes(content[: data.draw(st.integers(0, len(content)))] + data.draw(st.binary(max_size=5)))
        with LocalRun(path.parent) as archive:
            assert summarize(archive).records == 3
        again = Writer(LocalStore(directory))
        stored = again.open()
        assert stored.streams[A].watermark == 3
        assert stored.meta.items() >= META.items()
        assert json.loads(path.read_bytes()) == stored.meta
        assert bool(stored.notes) == path.with_name("run.json.torn").exists()
        again.store.close()


@pytest.fixture
def disk() -> FaultyDisk:
    return FaultyDisk()


@pytest.fixture
def faulty(tmp_path: Path, disk: FaultyDisk) -> Iterator[Writer]:
    """A run on a disk that can be told to fail."""
    writer = Writer(LocalStore(tmp_path, segment_bytes=4000, disk=disk))
    writer.open()
    writer.put()
    yield writer
    disk.room = None
    disk.faults.clear()
    if RUN in cast(LocalStore, writer.store).runs():
        writer.store.close()


@pytest.mark.parametrize("room", [0, 1, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 1, HEADER_BYTES + 499])
def test_a_full_disk_stores_nothing_of_a_batch_and_the_run_goes_on_later(
    faulty: Writer, disk: FaultyDisk, tmp_path: Path, room: int
) -> None:
    end = faulty.store.end(RUN)
    written = faulty.store.written
    disk.room = room
    for _ in range(3):
        with pytest.raises(StoreError, match="No space left") as caught:
            faulty.put(size=500)
        assert caught.value.errno == errno.ENOSPC
        assert caught.value.filename == str(tmp_path / RUN / segment_name(1))
        assert faulty.store.end(RUN) == end
        assert faulty.store.written == written
    assert stored_numbers(tmp_path / RUN) == [0, 1, 2]
    disk.room = None
    faulty.put(size=500)
    faulty.store.sync()
    assert stored_numbers(tmp_path / RUN) == list(range(6))
    with LocalRun(tmp_path / RUN) as archive:
        assert archive.verify().is_sound


def test_a_piece_that_cannot_be_cut_off_is_cut_before_the_next_batch(
    faulty: Writer, disk: FaultyDisk, tmp_path: Path
) -> None:
    disk.room = 200
    disk.faults["truncate"] = OSError(errno.EIO, "I/O error")
    with pytest.raises(StoreError, match="No space left"):
        faulty.put(size=500)
    disk.room = None
    with pytest.raises(StoreError, match="I/O error"):
        faulty.put(size=500)
    del disk.faults["truncate"]
    faulty.put(size=500)
    assert stored_numbers(tmp_path / RUN) == list(range(6))


def test_a_full_disk_at_the_border_of_segments_leaves_no_empty_one(
    faulty: Writer, disk: FaultyDisk, tmp_path: Path
) -> None:
    faulty.put(size=3000)
    disk.room = FILE_HEADER_BYTES - 1
    for _ in range(3):
        with pytest.raises(StoreError, match="no room for a file header"):
            faulty.put(size=500)
        disk.room = FILE_HEADER_BYTES - 1
    assert not (tmp_path / RUN / segment_name(2)).exists()
    disk.room = None
    faulty.put(size=500)
    assert stored_numbers(tmp_path / RUN) == list(range(9))


def test_room_is_what_the_file_system_says(faulty: Writer, disk: FaultyDisk) -> None:
    assert faulty.store.room()
    disk.available = 1000
    assert not faulty.store.room()


def test_a_failed_sync_is_not_forgotten_and_the_run_goes_back_to_the_last_good_one(
    faulty: Writer, disk: FaultyDisk, tmp_path: Path
) -> None:
    assert faulty.store.sync() == faulty.store.written
    faulty.put()
    faulty.put(size=3500)  # in a segment of its own
    cursor = faulty.store.end(RUN)
    disk.faults["sync"] = OSError(errno.EIO, "I/O error")
    with pytest.raises(RunFailed, match="sync failed: I/O error") as caught:
        faulty.store.sync()
    assert (caught.value.run, caught.value.errno) == (RUN, errno.EIO)
    with pytest.raises(RunFailed):
        faulty.put()
    with pytest.raises(StoreError):
        faulty.open()  # the disk still fails
    del disk.faults["sync"]
    with pytest.raises(RunFailed):
        faulty.store.sync()

    stored = faulty.open()
    assert stored.streams[A].watermark == 3
    assert stored.notes
    faulty.put(count=5)
    assert faulty.store.sync() == faulty.store.written
    assert stored_numbers(tmp_path / RUN) == list(range(8))
    with LocalRun(tmp_path / RUN) as archive:
        assert archive.verify().is_sound
        later = [header.first for header, _ in archive.frames(cursor) if header.kind is Kind.BATCH]
        assert later == [3], "a reader that was ahead goes on with what came in its place"


def test_one_run_that_fails_does_not_keep_others_from_being_synced(store: LocalStore, tmp_path: Path) -> None:
    writers = [Writer(store, name) for name in ("bad", "good")]
    for writer in writers:
        writer.open()
        writer.put()
    with pytest.MonkeyPatch.context() as patch:
        sync = LocalDisk.sync

        def fail_bad(self: LocalDisk, file: int) -> None:
            if "/bad/" in os.readlink(f"/proc/self/fd/{file}"):
                raise OSError(errno.EIO, "I/O error")
            sync(self, file)

        if not os.path.exists("/proc/self/fd"):
            pytest.skip("needs /proc to see which file is synced")
        patch.setattr(LocalDisk, "sync", fail_bad)
        with pytest.raises(RunFailed, match="I/O error"):
            store.sync()
    store.close_run("bad")
    writers[1].put()
    assert store.sync() == store.written


def test_appends_and_syncs_on_two_threads(tmp_path: Path) -> None:
    """What a sync returned is never more than what was appended before it began, and all of it is there."""
    writer = Writer(LocalStore(tmp_path, segment_bytes=50_000))
    writer.open()
    done = threading.Event()
    failures: list[BaseException] = []

    def keep_syncing() -> None:
        try:
            while not done.is_set():
                before = writer.store.written
                covered = writer.store.sync()
                assert before <= covered <= writer.store.written
                writer.store.retain()
        except BaseException as error:
            failures.append(error)
            raise

    thread = threading.Thread(target=keep_syncing)
    thread.start()
    for index in range(3000):
        writer.put(A if index % 2 else B, size=index % 700)
    done.set()
    thread.join()
    assert not failures
    assert writer.store.sync() == writer.store.written
    writer.store.close()
    assert stored_numbers(tmp_path / RUN, A) == stored_numbers(tmp_path / RUN, B) == list(range(4500))


def filled(directory: Path, lives: int = 3) -> Path:
    """A run that several daemons have written, in small segments; its directory."""
    for _ in range(lives):
        writer = Writer(LocalStore(directory, segment_bytes=600))
        writer.open()
        for index in range(6):
            writer.put(A if index % 2 else B, count=1 + index, size=40 * index)
        writer.store.close()
    return directory / RUN


@settings(max_examples=60)
@given(st.data())
def test_a_run_with_a_damaged_file_opens_and_gives_all_that_is_sound(data: st.DataObject) -> None:
    """Truncated, bit-flipped, overwritten, emptied or missing: the rest is there, in order, nothing twice."""
    with TemporaryDirectory() as directory:
        path = filled(Path(directory))
        before = {stream: stored_numbers(path, stream) for stream in (A, B)}
        victim = data.draw(st.sampled_from(sorted(path.glob("segment-*.tlf"))))
        content = bytearray(victim.read_bytes())
        at = data.draw(st.integers(0, len(content) - 1))
        harm = data.draw(st.sampled_from(["cut", "flip", "zeros", "garbage", "empty", "missing"]))
        match harm:
            case "cut":
                del content[at:]
            case "flip":
                content[at] ^= 1 << data.draw(st.integers(0, 7))
            case "zeros":
                content[at : at + 300] = bytes(len(content[at : at + 300]))
            case "garbage":
                content[at:] = data.draw(st.binary(max_size=200))
            case _:
                content.clear()
        newest = max(path.glob("segment-*.tlf"))
        victim.write_bytes(content)
        if harm == "missing":
            victim.unlink()
        unseen = harm == "missing" and victim == newest

        with LocalRun(path) as archive:
            found = sound_numbers(archive)
            if not unseen and found != before:
                assert not archive.verify().is_sound
        for stream in (A, B):
            assert set(found[stream]) <= set(before[stream])
            assert found[stream] == sorted(set(found[stream]))
        if harm == "flip":
            assert sum(map(len, before.values())) - sum(map(len, found.values())) <= 6, "one batch at most"

        writer = Writer(LocalStore(directory, segment_bytes=600))
        stored = writer.open()
        if harm in ("cut", "empty", "missing") and not unseen:
            assert stored.notes
        for stream in (A, B):
            writer.put(stream)
        writer.store.close()
        with LocalRun(path) as archive:
            sound = sound_numbers(archive)
        for stream in (A, B):
            assert sound[stream] == sorted(set(sound[stream]))
            assert sound[stream][-3:] == list(range(writer.next[stream] - 3, writer.next[stream]))
            if harm == "flip":
                assert sound[stream][:-3] == found[stream]


def sound_numbers(archive: LocalRun) -> dict[bytes, list[int]]:
    found: dict[bytes, list[int]] = {A: [], B: []}
    for header, position in archive.frames():
        if header.kind is Kind.BATCH:
            try:
                archive.payload(header, position)
            except MessageError:
                continue
            found[header.stream] += range(header.first, header.end)
    return found
