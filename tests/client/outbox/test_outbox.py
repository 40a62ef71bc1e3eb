"""The outbox: everything that was taken is handed out, kept until acknowledged, or counted as dropped."""

from __future__ import annotations

import errno
import itertools
import multiprocessing
import os
import signal
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlogs.outbox import ring
from tlogs.outbox.dead import open_dead
from tlogs.outbox.file import outbox_capacity
from tlogs.outbox.outbox import GROW_AGAIN_NS, Outbox
from tlogs.outbox.reader import MARGIN_NS, PATIENCE_NS, Reader
from tlogs.outbox.ring import Extent
from tlogs_shared.errors import ConfigError, ProtocolError, StoreError
from tlogs_shared.quantity import parse_size
from tlogs_shared.storage.batch import TARGET_RAW_BYTES
from tlogs_shared.storage.record import Fields, unpack_all

SMALL = 64 * 1024  # two pieces of 32 KiB
STREAM = b"0123456789abcdef"
PID_OFFSET = 64
LOOSE: tuple[Any, ...] = (None, None, "a.py", 1, "f", "MainThread", None)


class Both(Outbox):
    """An outbox with its reader, both in this process."""

    def __init__(self, path: Path, **more: Any) -> None:
        super().__init__(path, stream=STREAM, meta={"rank": 3}, **more)
        self.reader = Reader(os.open(path, os.O_RDWR), str(path), settle_s=0, clock=more.get("clock", time.time_ns))
        assert self.reader.take()

    def cut(self, close_open: bool) -> Extent | None:
        return self.reader.cut(close_open)

    def acknowledge(self, watermark: int) -> None:
        self.reader.acknowledge(watermark)
        self.trim()

    def let_go(self) -> str:
        """Leave the file as a process that ends does."""
        self.reader.close()
        self.close(delete=False)
        return self.path


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Both]]:
    made: list[Both] = []

    def outbox(capacity: int = SMALL, **more: Any) -> Both:
        made.append(Both(tmp_path / f"{len(made)}.outbox", capacity=capacity, **more))
        return made[-1]

    yield outbox
    for one in made:
        one.close(delete=True)


def put(outbox: Outbox, template: str, levelno: int = 20) -> bool:
    return outbox.append(levelno, "a", template, *LOOSE)


def fill(outbox: Outbox, levelno: int = 20, size: int = 1000) -> int:
    """Append until one is dropped; how many were taken."""
    count = 0
    while put(outbox, "x" * size, levelno):
        count += 1
    return count


def taken(outbox: Both) -> list[Extent]:
    """Everything that was not handed out yet."""
    return list(iter(lambda: outbox.cut(True), None))


def read(extents: list[Extent]) -> list[Fields]:
    for before, after in itertools.pairwise(extents):
        assert before.end == after.first
    found = []
    for extent in extents:
        records = list(unpack_all(bytes(extent.view)))
        assert len(records) == extent.count
        assert max(record.levelno for record in records) == extent.level
        assert (records[0].ts, records[-1].ts) == (extent.first_ts, extent.last_ts)
        found += records
    return found


def test_what_was_appended_is_handed_out_once_in_order(make: Callable[..., Both]) -> None:
    outbox = make()
    for index in range(10):
        assert put(outbox, f"m{index}")
    assert [record.template for record in read(taken(outbox))] == [f"m{index}" for index in range(10)]
    assert outbox.cut(True) is None
    assert (outbox.head, outbox.acknowledged, outbox.reader.unsent_bytes) == (10, 0, 0)


def test_an_extent_closes_at_the_size_of_a_batch(make: Callable[..., Both]) -> None:
    outbox = make(8 << 20)
    while (extent := outbox.cut(False)) is None:
        put(outbox, "x" * 1000)
    assert TARGET_RAW_BYTES <= len(extent.view) < TARGET_RAW_BYTES + 2000
    assert outbox.reader.unsent_bytes == 0


def test_a_rewind_hands_out_the_same_records_again(make: Callable[..., Both]) -> None:
    outbox = make()
    extents = []
    for index in range(9):
        put(outbox, f"m{index}")
        if index % 3 == 2:
            extents += taken(outbox)
    outbox.acknowledge(3)
    outbox.reader.rewind(3)
    assert read(taken(outbox)) == read(extents[1:])
    outbox.reader.rewind(9)
    assert taken(outbox) == []


@pytest.mark.parametrize("watermark", range(10))
def test_a_rewind_into_an_extent_splits_it(make: Callable[..., Both], watermark: int) -> None:
    outbox = make()
    for index in range(9):
        put(outbox, f"m{index}")
        if index == 5:
            taken(outbox)
    outbox.reader.rewind(watermark)
    again = taken(outbox)
    assert [record.template for record in read(again)] == [f"m{index}" for index in range(watermark, 9)]
    assert not again or again[0].first == watermark
    outbox.acknowledge(9)
    assert outbox.reader.unsent_bytes == 0


def test_a_watermark_that_was_never_reached_is_refused(make: Callable[..., Both]) -> None:
    outbox = make()
    put(outbox, "m")
    with pytest.raises(ProtocolError):
        outbox.acknowledge(2)
    with pytest.raises(ProtocolError):
        outbox.reader.rewind(2)


def test_an_acknowledgement_is_idempotent_and_never_goes_back(make: Callable[..., Both]) -> None:
    outbox = make()
    for index in range(4):
        put(outbox, f"m{index}")
    taken(outbox)
    for watermark in (3, 3, 1):
        outbox.acknowledge(watermark)
    assert (outbox.acknowledged, outbox.reader.acknowledged) == (3, 3)


def test_acknowledged_space_is_used_again_without_growing(make: Callable[..., Both]) -> None:
    outbox = make(4 << 20)
    for _ in range(20):
        for _ in range(1000):
            assert put(outbox, "x" * 1000)
        read(taken(outbox))
        outbox.acknowledge(outbox.head)
    assert os.stat(outbox.path).st_blocks * 512 < 2.2 * (1 << 20)  # one piece
    assert outbox.dropped == {}


def test_a_full_outbox_drops_below_warning_first(make: Callable[..., Both]) -> None:
    """Half of the last piece is kept for what matters."""
    outbox = make()
    low = fill(outbox)
    assert low * 1000 == pytest.approx(SMALL * 3 / 4, rel=0.1)
    high = fill(outbox, 40)
    assert high * 1000 == pytest.approx(SMALL / 4, rel=0.2)
    assert outbox.dropped == {20: 1, 40: 1}


def test_a_gap_stands_where_the_dropped_records_are_missing(make: Callable[..., Both]) -> None:
    outbox = make()
    low = fill(outbox)
    put(outbox, "x" * 1000, 10)
    assert put(outbox, "error", 40)
    put(outbox, "x" * 1000, 10)
    records = read(taken(outbox))
    assert [record.template for record in records[low:]] == ["dropped %d records: the outbox was full", "error"]
    gap = records[low]
    assert (gap.logger, gap.levelno, gap.args) == ("tlogs", 30, [2])
    assert gap.extra == {"stream": "tlogs", "fields": {"dropped": {"DEBUG": 1, "INFO": 1}}}
    assert outbox.dropped == {20: 1, 10: 2}


def test_a_gap_is_told_as_soon_as_there_is_room(make: Callable[..., Both]) -> None:
    outbox = make()
    fill(outbox)
    head = outbox.head
    taken(outbox)
    outbox.reader.acknowledge(head - 1)
    outbox.trim()  # as the control thread does, and the next record
    assert outbox.head == head + 1
    assert read(taken(outbox))[-1].template.startswith("dropped")


def test_a_flood_below_warning_does_not_fill_the_reserve_with_gaps(make: Callable[..., Both]) -> None:
    outbox = make()
    low = fill(outbox)
    for _ in range(10_000):
        assert not put(outbox, "x" * 1000)
    assert outbox.head == low
    assert put(outbox, "error", 40)


def no_space(*_: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_without_room_counts_as_a_full_outbox(
    make: Callable[..., Both], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 10**18
    outbox = make(4 << 20, clock=lambda: now)
    with monkeypatch.context() as full:
        full.setattr("tlogs.outbox.file._reserve", no_space)
        with pytest.raises(StoreError, match="No space left on device"):
            make()
        low = fill(outbox)
        assert low * 1000 == pytest.approx(1 << 20, rel=0.1)  # half of the only piece
        assert put(outbox, "error", 40)
    assert not put(outbox, "x" * 1000)  # it is not asked again at once
    now += GROW_AGAIN_NS
    assert put(outbox, "x" * 1000)
    assert outbox.dropped == {20: 2}


def test_an_outbox_takes_a_hundredth_of_what_is_free(
    make: Callable[..., Both], monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 400 << 20
    real = os.fstatvfs

    def fstatvfs(fd: int) -> os.statvfs_result:
        found = list(real(fd))
        found[1], found[4] = 4096, free // 4096
        return os.statvfs_result(found)

    monkeypatch.setattr(os, "fstatvfs", fstatvfs)
    outbox = make(64 << 20)
    assert fill(outbox, 40) * 1000 == pytest.approx(4 << 20, rel=0.05)
    free = 0
    assert fill(make(), 40) > 0  # what little there is will do


def test_more_levels_than_the_table_holds_are_counted_together(make: Callable[..., Both]) -> None:
    outbox = make()
    fill(outbox, 40)
    for levelno in range(1, 30):
        put(outbox, "x" * 1000, levelno)
    dead = open_dead(outbox.let_go())
    assert dead is not None
    assert sum(dead.header.dropped.values()) == 30
    assert dead.header.dropped == outbox.dropped
    dead.delete()


def test_the_time_never_goes_back(make: Callable[..., Both]) -> None:
    times = iter([10**18, 10**18 - 5, 10**18 + 7])
    outbox = make(clock=lambda: next(times))
    for text in "abc":
        put(outbox, text)
    assert [record.ts - 10**18 for record in read(taken(outbox))] == [0, 0, 7]


def test_a_promise_about_time_waits_for_the_append_in_progress(make: Callable[..., Both]) -> None:
    now = 10**18
    promised: list[int] = []

    def clock() -> int:
        if inside:
            inside.pop()
            for later in (0, 10**9, PATIENCE_NS - 10**9, PATIENCE_NS + 1):
                outbox.reader._clock = lambda later=later: now + later  # type: ignore[misc]
                promised.append(outbox.reader.low_ts)
        return now

    inside: list[bool] = []
    outbox = make(clock=clock)
    put(outbox, "a")
    assert outbox.reader.low_ts == now - MARGIN_NS
    inside.append(True)
    put(outbox, "b")  # stopped in the middle: for a while nothing is promised, then it holds nobody up any more
    assert promised == [now - MARGIN_NS] * 3 + [now + PATIENCE_NS + 1 - MARGIN_NS]
    outbox.reader._clock = lambda: now + 10**10
    assert outbox.reader.low_ts == now + 10**10 - MARGIN_NS
    outbox.reader._clock = lambda: now
    assert outbox.reader.low_ts == now + 10**10 - MARGIN_NS  # it is not taken back


@pytest.mark.parametrize("levelno", [20, 40])
def test_a_dropped_record_is_not_in_progress(make: Callable[..., Both], levelno: int) -> None:
    now = 10**18
    outbox = make(clock=lambda: now)
    fill(outbox, levelno)
    now += 10**9
    assert outbox.reader.low_ts == now - MARGIN_NS


def test_the_oldest_unsent_record_tells_its_time(make: Callable[..., Both]) -> None:
    times = iter([10**18, 10**18 + 1, 10**18 + 2])
    outbox = make(clock=lambda: next(times))
    assert outbox.reader.oldest_unsent_ts is None
    put(outbox, "a")
    put(outbox, "b")
    assert outbox.reader.oldest_unsent_ts == 10**18
    taken(outbox)
    put(outbox, "c")
    assert outbox.reader.oldest_unsent_ts == 10**18 + 2


def test_a_message_of_a_mebibyte_travels_whole(make: Callable[..., Both]) -> None:
    outbox = make(64 << 20)
    message = "x" * (1 << 20)
    assert put(outbox, message)
    assert read(taken(outbox))[0].template == message


@pytest.mark.parametrize("character", ["x", "é", "\U0001f600"])
@pytest.mark.parametrize("capacity", [SMALL, 64 << 20])
def test_a_longer_message_is_cut_and_says_how_much_is_missing(
    make: Callable[..., Both], character: str, capacity: int
) -> None:
    outbox = make(capacity)
    extra = {"exc": character * 300_000, "fields": {f"k{i}": character * 9000 for i in range(99)}, "artifact": "guards"}
    args = ("m", character * 3_000_000)
    assert outbox.append(20, "a", "%s: %s", args, None, "a.py", 1, "f", "MainThread", extra)
    record = read(taken(outbox))[0]
    assert record.extra is not None
    assert record.message == "m: " + character * (len(record.message or "") - 3)
    assert record.extra["cut"] + len(record.message or "") == 3_000_003
    assert record.extra["artifact"] == "guards"
    assert "left out" in record.extra["exc"]
    assert len((record.message or "").encode()) > (7000 if capacity == SMALL else 900_000)


def test_what_cannot_be_packed_travels_as_text(make: Callable[..., Both]) -> None:
    outbox = make()
    assert outbox.append(20, "a", "%s", (object,), None, "a.py", 2**70, "f", "t", {"fields": {"k": object}})
    assert outbox.append(20, "a", "%d", (2**70,), None, "a.py", 1, "f", "t", None)
    assert outbox.append(2**80, "a", "b\ud800", *LOOSE)
    assert outbox.append(20, "a", "c\ud800 %d", (1,), *LOOSE[1:])
    found = read(taken(outbox))
    assert [record.message for record in found] == ["<class 'object'>", str(2**70), None, None]
    assert (found[2].template, found[2].levelno) == ("b\ud800", 0)
    assert (found[3].template, found[3].args) == ("c\ud800 %d", [1])


def test_the_file_is_for_this_user_only(make: Callable[..., Both]) -> None:
    assert os.stat(make().path).st_mode & 0o777 == 0o600


def test_a_closed_outbox_takes_nothing_and_keeps_what_it_has(make: Callable[..., Both]) -> None:
    outbox = make()
    put(outbox, "a")
    outbox.close(delete=False)
    assert not put(outbox, "b")
    outbox.trim()
    assert (outbox.head, outbox.dropped, outbox.reader.is_alive()) == (1, {}, False)
    assert [record.template for record in read(taken(outbox))] == ["a"]


def test_a_directory_that_cannot_be_written_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"No such file.*TLOGS_OUTBOX_DIR"):
        Outbox(tmp_path / "no" / "a", stream=STREAM, meta={}, capacity=SMALL)
    (tmp_path / "a").touch()
    with pytest.raises(StoreError, match="such a file already"):
        Outbox(tmp_path / "a", stream=STREAM, meta={}, capacity=SMALL)
    with pytest.raises(ConfigError, match="metadata"):
        Outbox(tmp_path / "b", stream=STREAM, meta={"k": "x" * 20_000}, capacity=SMALL)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


@pytest.mark.parametrize(
    ("text", "size"), [("64MB", 64_000_000), ("64MiB", 64 << 20), ("64M", 64_000_000), ("1.5MiB", 3 << 19)]
)
def test_a_size_means_here_what_it_means_everywhere(text: str, size: int) -> None:
    assert outbox_capacity({"TLOGS_OUTBOX_BYTES": text}) == parse_size(text) == size


@pytest.mark.parametrize("text", ["x", "-1", "10", "1,5MiB"])
def test_a_malformed_or_too_small_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="TLOGS_OUTBOX_BYTES"):
        outbox_capacity({"TLOGS_OUTBOX_BYTES": text})


# Re-entrancy: each of these would wait for itself for ever if the lock were a plain one.


def test_a_record_logged_while_one_is_packed_follows_it(make: Callable[..., Both]) -> None:
    """As from a signal handler: the clock is read inside the append, and logs."""

    def clock() -> int:
        if outbox.head == 1 and not inner:
            inner.append(put(outbox, "inner"))
            extents.extend(taken(outbox))
        return 10**18

    inner: list[bool] = []
    extents: list[Extent] = []
    outbox = make(clock=lambda: 10**18)
    put(outbox, "before")
    outbox._clock = clock
    put(outbox, "outer")
    assert inner == [True]
    assert [record.template for record in read(extents + taken(outbox))] == ["before", "outer", "inner"]


def test_a_record_logged_while_an_extent_is_cut_is_taken(make: Callable[..., Both]) -> None:
    outbox = make()
    put(outbox, "a")
    with outbox._inside():
        assert put(outbox, "b")
    assert [record.template for record in read(taken(outbox))] == ["a", "b"]


def test_many_threads_and_a_signal_handler_lose_and_double_nothing(make: Callable[..., Both]) -> None:
    outbox = make(4 << 20)
    stop = threading.Event()

    def log(name: int) -> None:
        for index in range(4000):
            assert put(outbox, f"{name} {index}")

    def forward() -> None:
        while not stop.is_set() or outbox.reader.unsent_bytes:
            while (extent := outbox.cut(True)) is not None:
                found.extend(record.template for record in unpack_all(bytes(extent.view)))
                outbox.acknowledge(extent.end)

    found: list[str] = []
    signals = itertools.count()

    def handler(*_: object) -> None:
        put(outbox, f"signal {next(signals)}")

    old = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0005)
    try:
        threads = [threading.Thread(target=log, args=(name,)) for name in range(3)]
        forwarder = threading.Thread(target=forward)
        for thread in (*threads, forwarder):
            thread.start()
        log(3)
        for thread in threads:
            thread.join()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
        stop.set()
        forwarder.join()
    for name in range(4):
        assert [text for text in found if text.startswith(f"{name} ")] == [f"{name} {index}" for index in range(4000)]
    # A handler can be interrupted by itself, so these are not in order.
    count = next(signals)
    assert count
    assert sorted(found)[-count:] == sorted(f"signal {index}" for index in range(count))
    assert len(found) == 4 * 4000 + count


# Salvage.


def salvaged(dead: Reader, watermark: int | None = None) -> list[Fields]:
    dead.rewind(dead.header.acknowledged if watermark is None else watermark)
    return read(list(iter(lambda: dead.cut(True), None)))


def test_a_living_outbox_is_left_alone(make: Callable[..., Both]) -> None:
    outbox = make()
    assert open_dead(outbox.path) is None  # in its own process, and it still holds its lock afterwards:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_is_alive, (outbox.path,))


def _is_alive(path: str) -> bool:
    return open_dead(path) is None


def test_a_dead_outbox_gives_what_was_not_acknowledged(make: Callable[..., Both]) -> None:
    outbox = make()
    for index in range(9):
        put(outbox, f"m{index}")
    taken(outbox)
    outbox.acknowledge(4)
    outbox.set_meta({"rank": 5})
    dead = open_dead(outbox.let_go())
    assert dead is not None
    assert open_dead(outbox.path) is None  # held
    assert (dead.header.stream, dead.header.acknowledged, dead.header.meta) == (STREAM, 4, {"rank": 5})
    assert [record.template for record in salvaged(dead)] == [f"m{index}" for index in range(4, 9)]
    assert [record.template for record in salvaged(dead, 7)] == ["m7", "m8"]
    assert dead.head == 9
    dead.delete()
    assert not os.path.exists(outbox.path)


def test_a_dead_outbox_knows_what_was_dropped(make: Callable[..., Both]) -> None:
    outbox = make()
    fill(outbox)
    fill(outbox, 40)
    dead = open_dead(outbox.let_go())
    assert dead is not None
    assert dead.header.dropped == {20: 1, 40: 1}
    dead.delete()


def two_pieces(make: Callable[..., Both]) -> tuple[Both, int]:
    """An outbox that has just gone on to its second piece, and the number of the first record there."""
    outbox = make()
    while outbox._index == 0:
        first = outbox.head
        put(outbox, "x" * 100)
    put(outbox, "last")
    return outbox, first


def spoil(outbox: Both, offset: int) -> None:
    with open(outbox.path, "r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 100)


def test_what_lies_behind_damage_is_supplied_once_all_before_it_is_stored(make: Callable[..., Both]) -> None:
    outbox, first = two_pieces(make)
    spoil(outbox, outbox._file.start + 2000)
    dead = open_dead(outbox.let_go())
    assert dead is not None
    before = dead.cut(True)
    assert before is not None
    assert (before.first, dead.cut(True), dead.acknowledged) == (0, None, 0)
    dead.acknowledge(before.end)
    behind = dead.cut(True)
    assert behind is not None
    # A collector that asks for the missing ones is told by this that they will not come.
    assert behind.first == dead.acknowledged == first
    assert (dead.missing, behind.end, dead.cut(True)) == (first - before.end, dead.head, None)
    dead.delete()


def test_what_lies_behind_a_damaged_extent_of_the_same_piece_is_supplied(make: Callable[..., Both]) -> None:
    outbox = make(4 << 20)
    while outbox._entries < 3:
        put(outbox, "x" * 1000)
    spoil(outbox, outbox._file.start + TARGET_RAW_BYTES + 5000)
    dead = open_dead(outbox.let_go())
    assert dead is not None
    whole, before = dead.cut(True), dead.cut(True)
    assert whole is not None
    assert before is not None
    assert (before.first, dead.cut(True)) == (whole.end, None)
    dead.acknowledge(before.end)
    behind = dead.cut(True)
    assert behind is not None
    assert behind.first == 2 * whole.end
    assert dead.missing == behind.first - before.end
    dead.delete()


def test_a_dead_outbox_whose_end_is_damaged_is_done_when_the_rest_is_stored(make: Callable[..., Both]) -> None:
    outbox, _ = two_pieces(make)
    outbox.let_go()
    spoil(outbox, outbox._file.start + 2000)
    spoil(outbox, outbox._base)
    dead = open_dead(outbox.path)
    assert dead is not None
    before = dead.cut(True)
    assert before is not None
    dead.acknowledge(before.end)
    assert dead.cut(True) is None
    assert dead.acknowledged == dead.head == before.end + dead.missing > before.end
    dead.delete()


def test_what_is_no_outbox_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"notes")
    assert open_dead(path) is None
    assert path.read_bytes() == b"notes"


@given(st.data())
@settings(max_examples=60)
def test_any_damage_gives_whole_records_or_none(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as directory:
        outbox = Outbox(f"{directory}/a", stream=STREAM, meta={"rank": 3}, capacity=SMALL)
        for index in range(60):
            put(outbox, f"m{index} {'x' * 500}")
        outbox.close(delete=False)
        image = bytearray(Path(outbox.path).read_bytes())
        for _ in range(data.draw(st.integers(0, 5))):
            where = data.draw(st.sampled_from([0, ring.HEADER_BYTES, 20_480, outbox._file.start, outbox._base]))
            where += data.draw(st.integers(0, 2000))
            noise = data.draw(st.binary(min_size=1, max_size=20))
            image[where : where + len(noise)] = noise
        Path(outbox.path).write_bytes(image[: data.draw(st.integers(0, len(image)))])
        dead = open_dead(outbox.path)
        if dead is not None:
            while (extent := dead.cut(True)) is not None:
                assert len(list(unpack_all(bytes(extent.view)))) == extent.count
                dead.acknowledge(extent.end)
            dead.delete()


class Tape:
    """Every store into an outbox's file, in order."""

    def __init__(self, outbox: Outbox) -> None:
        self.start = bytes(outbox._file.view)
        self.stores: list[tuple[int, bytes]] = []
        outbox._map = outbox._file.map = _Taped(outbox._map, self.stores)  # type: ignore[assignment]
        outbox._words = outbox._file.words = _TapedWords(outbox._words, self.stores)  # type: ignore[assignment]

    def image(self, count: int, size: int) -> bytes:
        """The file after so many stores, and so many bytes of the next."""
        image = bytearray(self.start)
        for where, data in [*self.stores[:count], (self.stores[count][0], self.stores[count][1][:size])]:
            image[where : where + len(data)] = data
        image[PID_OFFSET : PID_OFFSET + 8] = bytes(8)  # no process has this number
        return bytes(image)

    def stops(self) -> list[tuple[int, int]]:
        """Where a writer may be stopped: in any byte of the table, within a record, before a word."""
        return [
            (index, size)
            for index, (_, data) in enumerate(self.stores)
            for size in {8: [0], ring.ENTRY_BYTES: range(ring.ENTRY_BYTES)}.get(
                len(data), [0, len(data) // 2, len(data) - 1]
            )
        ]


class _Taped:
    def __init__(self, inner: Any, stores: list[tuple[int, bytes]]) -> None:
        self.inner, self.stores = inner, stores

    def __getitem__(self, key: Any) -> Any:
        return self.inner[key]

    def __setitem__(self, key: slice, data: bytes) -> None:
        self.stores.append((key.start, data))
        self.inner[key] = data

    def close(self) -> None:
        self.inner.close()

    def size(self) -> int:
        return len(self.inner)

    def release(self) -> None:
        self.inner.release()


class _TapedWords(_Taped):
    def __setitem__(self, key: Any, value: Any) -> None:
        self.stores.append((key * 8, struct.pack("=Q", value)))
        self.inner[key] = value


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.sampled_from([10, 40]), st.sampled_from([10, 1000, 6000])),
        st.tuples(st.just("append"), st.just(20), st.just(3000)),
        st.tuples(st.just("acknowledge"), st.sampled_from([0.5, 0.97, 1.0]), st.just(0)),
        st.tuples(st.just("trim"), st.just(0), st.just(0)),
    ),
    min_size=20,
    max_size=100,
)


@given(ACTIONS, st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_a_writer_stopped_at_any_byte_leaves_all_that_it_had_taken(actions: list[Any], random: Random) -> None:
    check_stopped(actions, lambda stops: random.sample(stops, min(len(stops), 40)))


def test_a_writer_stopped_while_it_uses_a_piece_again_leaves_all_that_it_had_taken() -> None:
    check_stopped([*[("append", 40, 3000)] * 19, ("acknowledge", 0.97, 0), *[("append", 40, 3000)] * 10], list)


def check_stopped(actions: list[Any], choose: Callable[[list[tuple[int, int]]], list[tuple[int, int]]]) -> None:
    """Every record whose append had returned, and that was not acknowledged, is found: in order, none twice."""
    with tempfile.TemporaryDirectory() as directory:
        # The clock stands still, so that the order of times does not help to tell stale records from others.
        outbox = Outbox(f"{directory}/a", stream=STREAM, meta={}, capacity=SMALL, clock=lambda: 10**18)
        tape = Tape(outbox)
        written: dict[int, str] = {}
        heads = [(0, 0)]  # stores made, head then
        for number, (action, what, size) in enumerate(actions):
            head = outbox.head
            if action == "append":
                if put(outbox, f"{number} {'x' * size}", what):
                    written[outbox.head - 1] = str(number)
            elif action == "acknowledge":
                watermark = int(what * outbox.head)
                if watermark > outbox.acknowledged:
                    outbox._words[ring.ACKNOWLEDGED] = watermark
            else:
                outbox.trim()
            for gap in range(head, outbox.head):
                written.setdefault(gap, "dropped")
            heads.append((len(tape.stores), outbox.head))
        for count, size in choose(tape.stops()):
            Path(directory, "b").write_bytes(tape.image(count, size))
            dead = open_dead(f"{directory}/b")
            assert dead is not None
            found = [record.template.split(" ")[0] for record in salvaged(dead)]
            first = dead.header.acknowledged
            assert found == [written[number] for number in range(first, first + len(found))]
            assert first + len(found) >= max(head for stores, head in heads if stores <= count)
            dead.delete()
        outbox.close(delete=True)


# Forks.


@pytest.mark.multiprocess
def test_a_child_leaves_the_parents_outbox_alone(make: Callable[..., Both], tmp_path: Path) -> None:
    outbox = make()
    put(outbox, "before")
    extent = outbox.cut(True)
    assert extent is not None
    pid = os.fork()
    if pid == 0:
        outbox.abandon()
        outbox.reader.close()
        taken_by_child = put(outbox, "child")
        own = Outbox(tmp_path / "child", stream=b"c" * 16, meta={}, capacity=SMALL)
        put(own, "own")
        os._exit(taken_by_child)
    assert os.waitpid(pid, 0)[1] == 0
    put(outbox, "after")
    assert [record.template for record in read([extent, *taken(outbox)])] == ["before", "after"]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_is_alive, (outbox.path,))
    dead = open_dead(tmp_path / "child")
    assert dead is not None
    assert [record.template for record in salvaged(dead)] == ["own"]
    dead.delete()


@pytest.mark.multiprocess
def test_a_child_is_not_held_up_by_a_lock_that_the_parent_held(make: Callable[..., Both]) -> None:
    outbox = make()
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with outbox._inside():
            inside.set()
            leave.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait()
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        outbox.abandon()
        os._exit(put(outbox, "child"))
    leave.set()
    thread.join()
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.multiprocess
def test_the_last_record_before_a_kill_is_found(tmp_path: Path) -> None:
    path = str(tmp_path / "a")
    for index in range(5):
        pid = os.fork()
        if pid == 0:
            outbox = Outbox(path, stream=STREAM, meta={}, capacity=SMALL)
            for number in range(100):
                put(outbox, f"m{number}")
            os.kill(os.getpid(), signal.SIGKILL)
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL
        dead = open_dead(path)
        assert dead is not None, index
        assert [record.template for record in salvaged(dead)] == [f"m{number}" for number in range(100)]
        dead.delete()
