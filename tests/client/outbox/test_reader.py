"""The reader's side of an outbox: who may send from it, what it takes from a live one, and outboxes of tlogs 0.1."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tlogs.outbox import ring
from tlogs.outbox.dead import open_dead
from tlogs.outbox.outbox import Outbox
from tlogs.outbox.reader import Reader, attach, open_outbox
from tlogs_shared.errors import MessageError
from tlogs_shared.storage.batch import TARGET_RAW_BYTES
from tlogs_shared.storage.record import unpack_all

STREAM = b"0123456789abcdef"
VERSION_1 = Path(__file__).parents[2] / "data" / "version1.outbox.gz"


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    one = Outbox(tmp_path / "a.outbox", stream=STREAM, meta={"rank": 3}, capacity=4 << 20)
    yield one
    one.close(delete=True)


@pytest.fixture
def reader(outbox: Outbox) -> Iterator[Reader]:
    one = open_outbox(outbox.path, settle_s=0)
    yield one
    one.close()


def put(outbox: Outbox, text: str) -> None:
    assert outbox.append(20, "a", text, None, None, "a.py", 1, "f", "MainThread", None)


def texts(reader: Reader) -> list[str]:
    """The templates of everything that can be taken now."""
    return [
        record.template
        for extent in iter(lambda: reader.cut(True), None)
        for record in unpack_all(bytes(extent.view))
    ]  # fmt: skip


# Who sends.


def test_only_one_reader_sends_from_an_outbox(outbox: Outbox, reader: Reader) -> None:
    put(outbox, "a")
    other = open_outbox(outbox.path)
    assert reader.take()
    assert reader.take()
    assert not other.take()
    reader.acknowledge(1)
    with pytest.raises(AssertionError):
        other.acknowledge(1)
    assert other.acknowledged == outbox.acknowledged == 1
    other.close()


def test_a_passed_descriptor_is_opened_anew_so_that_two_do_not_both_get_the_lock(outbox: Outbox) -> None:
    first, second = attach(os.dup(outbox.fd)), attach(os.dup(outbox.fd))
    assert (first.take(), second.take()) == (True, False)
    first.close()
    assert second.take()
    second.close()


def test_the_writer_never_goes_below_the_highest_watermark_that_it_has_seen(outbox: Outbox, reader: Reader) -> None:
    for index in range(10):
        put(outbox, str(index))
    reader.take()
    reader.acknowledge(9)
    assert outbox.acknowledged == 9
    outbox._words[ring.ACKNOWLEDGED] = 2  # as one does that was stopped between its check and its store
    assert (outbox.acknowledged, outbox._words[ring.ACKNOWLEDGED]) == (9, 9)
    outbox._words[ring.ACKNOWLEDGED] = 11  # more than there are
    assert outbox.acknowledged == 9


def test_an_outbox_without_a_name_is_read_on_and_said_to_be_so(outbox: Outbox, reader: Reader) -> None:
    os.unlink(outbox.path)
    put(outbox, "a")
    assert texts(reader) == ["a"]
    assert outbox.is_unlinked
    assert reader.is_unlinked
    again = attach(os.dup(outbox.fd))
    assert again.head == 1
    again.close()


# A live outbox.


def test_only_what_an_earlier_look_saw_is_taken_from_a_live_outbox(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    reader = open_outbox(outbox.path)
    put(outbox, "a")
    assert (reader.head, texts(reader)) == (1, [])
    now += 0.0005
    assert texts(reader) == []
    now += 0.001
    put(outbox, "b")
    assert texts(reader) == ["a"]
    now += 0.001
    assert texts(reader) == ["b"]
    put(outbox, "c")
    reader.seal()
    assert texts(reader) == ["c"]
    reader.close()


def test_a_closed_extent_comes_from_the_table_and_an_open_one_only_when_asked_for(
    outbox: Outbox, reader: Reader
) -> None:
    while outbox.head < 2 or outbox._entries == 0:
        put(outbox, "x" * 1000)
    put(outbox, "rest")
    extent = reader.cut(False)
    assert extent is not None
    assert TARGET_RAW_BYTES <= len(extent.view) < TARGET_RAW_BYTES + 2000
    assert (extent.end, reader.cut(False)) == (outbox.head - 1, None)
    assert reader.oldest_unsent_ts == outbox._ts
    assert texts(reader) == ["rest"]
    assert reader.unsent_bytes == 0
    assert reader.oldest_unsent_ts is None


def test_a_piece_that_is_used_anew_while_it_is_read_gives_nothing(
    outbox: Outbox, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(outbox, "old")
    real = os.pread

    def pread(fd: int, size: int, offset: int) -> bytes:
        monkeypatch.undo()
        while outbox._index == 0:
            put(outbox, "x" * 1000)
        outbox._words[ring.ACKNOWLEDGED] = outbox.head
        while outbox._index != 0:
            put(outbox, "y" * 1000)
        return real(fd, size, offset)

    assert reader.unsent_bytes
    monkeypatch.setattr(os, "pread", pread)
    assert reader.cut(True) is None


def test_a_reader_that_comes_late_begins_at_what_is_acknowledged(outbox: Outbox) -> None:
    for index in range(6):
        put(outbox, str(index))
    outbox._words[ring.ACKNOWLEDGED] = 4
    late = open_outbox(outbox.path, settle_s=0)
    assert (late.acknowledged, late.head, texts(late)) == (4, 6, ["4", "5"])
    late.rewind(5)
    assert texts(late) == ["5"]
    late.close()


def test_a_file_that_is_not_an_outbox_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"notes")
    (tmp_path / "b").symlink_to("a")
    os.mkfifo(tmp_path / "c")
    with pytest.raises(MessageError, match="expected an outbox"):
        open_outbox(tmp_path / "a")
    with pytest.raises(OSError, match="symbolic"):
        open_outbox(tmp_path / "b")
    with pytest.raises(MessageError, match="regular"):
        open_outbox(tmp_path / "c")


def test_what_faulthandler_wrote_is_the_last_record_though_a_file_s_time_is_coarse(outbox: Outbox) -> None:
    for index in range(3):
        put(outbox, str(index))
    side = Path(f"{outbox.path}.fault")
    side.write_text("Fatal Python error: Aborted\n\nThread 1\n")
    os.utime(side, ns=(5 << 32, 5 << 32))
    reader = open_outbox(outbox.path)
    reader.seal()
    assert reader.head == 4
    for watermark in (0, 3):
        reader.rewind(watermark)
        extents = list(iter(lambda: reader.cut(True), None))
        assert extents[-1].first_ts == outbox._ts
        assert (extents[-1].first, extents[-1].end) == (3, 4)
    reader.close()
    side.unlink()


# Version 1.


@pytest.fixture
def version1(tmp_path: Path) -> Path:
    path = tmp_path / "old.outbox"
    path.write_bytes(gzip.decompress(VERSION_1.read_bytes()))
    return path


def test_what_a_worker_of_0_1_left_is_read(version1: Path) -> None:
    dead = open_dead(version1)
    assert dead is not None
    assert (dead.stream, dead.acknowledged, dead.head, dead.dropped) == (bytes(range(16)), 33, 70, {})
    assert dead.header.meta["origin"] == {"rank": 3, "host": "node7", "pid": 4242, "run": "old"}
    assert [text.split(" .")[0] for text in texts(dead)] == [f"step {index}" for index in range(33, 70)]
    for watermark in (33, 47, 60, 69):
        dead.rewind(watermark)
        assert len(texts(dead)) == 70 - watermark
    dead.acknowledge(50)
    assert open_dead(version1) is None  # taken
    dead.close()
    again = open_dead(version1)
    assert again is not None
    assert len(texts(again)) == 20
    again.delete()
    assert not version1.exists()


@pytest.mark.multiprocess
def test_a_worker_of_0_1_that_lives_is_left_alone(version1: Path) -> None:
    """Its lock is a POSIX lock on the whole file."""
    script = "import fcntl, sys; f = open(sys.argv[1], 'r+b'); fcntl.lockf(f, fcntl.LOCK_EX)\n"
    script += "print('ok', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(version1)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ok\n"
        assert open_dead(version1) is None
        process.communicate()
    dead = open_dead(version1)
    assert dead is not None
    dead.close()
