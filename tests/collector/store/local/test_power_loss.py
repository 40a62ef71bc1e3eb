"""The store on a disk that loses power, explored by hypothesis.

The simulated disk keeps un-synced blocks, sizes, directory entries and renames independently of each other: after
power loss any part of them is there. Whatever that part is, the store opens, everything that a `sync` covered is
readable, and nothing is there twice.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tlogs_collector.store.disk import Space
from tlogs_collector.store.local.local_store import LocalStore
from tlogs_collector.store.store import RunFailed, StoredRun
from tlogs_shared.errors import StoreError
from tlogs_shared.origin import Origin, StreamInfo
from tlogs_shared.storage.batch import HEADER_BYTES, Header, Kind, check_payload, seal
from tlogs_shared.storage.position import START
from tlogs_shared.storage.segment import unpack_stream

BLOCK_BYTES = 512
"""What a disk writes whole or not at all. File systems keep 4 KiB together; a smaller block is the harder test."""


class PowerLoss(Exception):
    """The machine is off: whoever was in a call never sees it return."""


@dataclass
class SimulatedFile:
    """`data` is what a program reads, `durable` what the platter holds; `dirty` blocks may get there or not."""

    data: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    dirty: set[int] = field(default_factory=set)
    locked: bool = False

    def touch(self, start: int, end: int) -> None:
        self.dirty.update(range(start // BLOCK_BYTES, -(-end // BLOCK_BYTES)))

    def settle(self, random: Random, chance: float) -> None:
        """Lose power: each dirty block and the size are the old or the new ones."""
        size = len(self.durable)
        if len(self.data) != size:
            size = random.choice([size, len(self.data), random.randint(*sorted((size, len(self.data))))])
        found = bytearray(self.durable[:size].ljust(size, b"\0"))
        for block in self.dirty:
            start, end = block * BLOCK_BYTES, min((block + 1) * BLOCK_BYTES, size)
            if random.random() < chance and start < end:
                found[start:end] = bytes(self.data[start:end]).ljust(end - start, b"\0")
        self.durable = bytes(found)
        self.data, self.dirty, self.locked = found, set(), False


Entries = dict[str, "SimulatedFile | SimulatedDirectory"]


@dataclass
class SimulatedDirectory:
    """`pending` changes may reach the platter or not, each by itself."""

    entries: Entries = field(default_factory=dict)
    durable: Entries = field(default_factory=dict)
    pending: list[Callable[[Entries], object]] = field(default_factory=list)

    def change(self, operation: Callable[[Entries], object]) -> None:
        operation(self.entries)
        self.pending.append(operation)

    def settle(self, random: Random, chance: float) -> None:
        for operation in self.pending:
            if random.random() < chance:
                operation(self.durable)
        self.pending = []
        self.entries = dict(self.durable)
        for node in self.entries.values():
            node.settle(random, chance)


class SimulatedDisk:
    """A disk in memory. `fuse` counts down with every change; at 0 the power goes."""

    def __init__(self) -> None:
        self.root = SimulatedDirectory({}, {})
        self.root.entries["d"] = self.root.durable["d"] = SimulatedDirectory()
        self.files: dict[int, tuple[SimulatedFile, int]] = {}
        self.fuse: int | None = None
        self.failing = False
        self.meanwhile: Callable[[], None] = lambda: None
        self.locks: dict[int, SimulatedFile] = {}

    def lose_power(self, seed: int, chance: float) -> None:
        """What is left is what is durable and, of the rest, each part with this chance."""
        self.root.settle(Random(seed), chance)
        self.files.clear()
        self.locks.clear()
        self.fuse = None
        self.failing = False

    def _burn(self) -> None:
        if self.fuse is not None:
            if self.fuse <= 0:
                raise PowerLoss
            self.fuse -= 1

    def _directory(self, path: str) -> SimulatedDirectory:
        node: SimulatedFile | SimulatedDirectory = self.root
        for part in path.strip("/").split("/"):
            if not isinstance(node, SimulatedDirectory) or part not in node.entries:
                raise FileNotFoundError(errno.ENOENT, "no such directory", path)
            node = node.entries[part]
        assert isinstance(node, SimulatedDirectory)
        return node

    def _split(self, path: str) -> tuple[SimulatedDirectory, str]:
        directory, _, name = path.rpartition("/")
        return self._directory(directory), name

    def _find(self, path: str) -> SimulatedFile:
        directory, name = self._split(path)
        node = directory.entries.get(name)
        if not isinstance(node, SimulatedFile):
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        return node

    def _hold(self, node: SimulatedFile, offset: int = 0) -> int:
        number = max(self.files, default=2) + 1
        self.files[number] = (node, offset)
        return number

    def create(self, path: str) -> int:
        self._burn()
        directory, name = self._split(path)
        node = directory.entries.get(name)
        if isinstance(node, SimulatedFile):
            node.touch(0, len(node.data))
            node.data.clear()
        else:
            node = SimulatedFile()
            directory.change(lambda entries, node=node: entries.__setitem__(name, node))  # type: ignore[misc]
        return self._hold(node)

    def open(self, path: str) -> int:
        return self._hold(self._find(path))

    def extend(self, path: str) -> int:
        try:
            node = self._find(path)
        except FileNotFoundError:
            return self.create(path)
        return self._hold(node, len(node.data))

    def lock(self, path: str) -> int | None:
        file = self.extend(path)
        node = self.files[file][0]
        if node.locked:
            self.close(file)
            return None
        node.locked = True
        self.locks[file] = node
        return file

    def close(self, file: int) -> None:
        self.files.pop(file, None)
        if file in self.locks:
            self.locks.pop(file).locked = False

    def size(self, file: int) -> int:
        return len(self.files[file][0].data)

    def read(self, file: int, size: int, offset: int) -> bytes:
        return bytes(self.files[file][0].data[offset : offset + size])

    def write(self, file: int, pieces: Sequence[bytes]) -> int:
        self._burn()
        node, offset = self.files[file]
        data = b"".join(pieces)
        node.data[offset : offset + len(data)] = data
        node.touch(offset, offset + len(data))
        self.files[file] = (node, offset + len(data))
        return len(data)

    def write_at(self, file: int, data: bytes, offset: int) -> None:
        self._burn()
        node = self.files[file][0]
        node.data[offset : offset + len(data)] = data
        node.touch(offset, offset + len(data))

    def truncate(self, file: int, size: int) -> None:
        self._burn()
        node = self.files[file][0]
        node.touch(size, max(len(node.data), size))
        del node.data[size:]
        self.files[file] = (node, size)

    def sync(self, file: int) -> None:
        """Covers what was written before it began; of what comes meanwhile, nothing."""
        self._burn()
        node = self.files[file][0]
        data, dirty = bytes(node.data), set(node.dirty)
        node.dirty -= dirty
        if self.failing:
            # As Linux does it: the pages are clean now, and the next sync will say that all is well.
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self.meanwhile()
        self._burn()
        found = bytearray(node.durable[: len(data)].ljust(len(data), b"\0"))
        for block in dirty:
            start, end = block * BLOCK_BYTES, min((block + 1) * BLOCK_BYTES, len(data))
            found[start:end] = data[start:end]
        node.durable = bytes(found)

    def sync_directory(self, path: str) -> None:
        self._burn()
        directory = self._directory(path)
        directory.durable, directory.pending = dict(directory.entries), []

    def rename(self, old: str, new: str) -> None:
        self._burn()
        directory, name = self._split(old)
        node = self._find(old)
        target = new.rpartition("/")[2]

        def apply(entries: Entries) -> None:
            entries.pop(name, None)
            entries[target] = node

        directory.change(apply)

    def unlink(self, path: str) -> None:
        self._burn()
        directory, name = self._split(path)
        self._find(path)
        directory.change(lambda entries: entries.pop(name, None))

    def make_directory(self, path: str) -> None:
        node: SimulatedFile | SimulatedDirectory = self.root
        for part in path.strip("/").split("/"):
            assert isinstance(node, SimulatedDirectory)
            if part not in node.entries:
                self._burn()
                made = SimulatedDirectory()
                node.change(lambda entries, part=part, made=made: entries.__setitem__(part, made))  # type: ignore[misc]
            node = node.entries[part]

    def remove_directory(self, path: str) -> None:
        self._burn()
        directory, name = self._split(path)
        directory.change(lambda entries: entries.pop(name, None))

    def names(self, path: str) -> list[str]:
        return list(self._directory(path).entries)

    def is_directory(self, path: str) -> bool:
        try:
            return isinstance(self._directory(path), SimulatedDirectory)
        except (FileNotFoundError, AssertionError):
            return False

    def modified(self, path: str) -> float:
        return 0.0

    def space(self, path: str) -> Space:
        return Space(1 << 40, 1 << 41)


STREAMS = [bytes([number]) * 16 for number in range(3)]
RUN = "run"
Batch = tuple[bytes, int, int, int]
batches = st.tuples(
    st.sampled_from(STREAMS), st.integers(1, 40), st.integers(1, 900), st.sampled_from([10, 20, 20, 40])
)


def payload_of(stream: bytes, first: int, count: int, size: int) -> bytes:
    """Different for every batch, so that one in the place of another is seen."""
    return Random(f"{stream!r}{first}+{count}").randbytes(max(size, count))


@dataclass
class Told:
    """What was stored as far as the test knows: per stream the watermark and the last head, and control lines."""

    watermarks: dict[bytes, int] = field(default_factory=dict)
    heads: dict[bytes, int] = field(default_factory=dict)
    lines: int = 0

    def copy(self) -> Told:
        return Told(dict(self.watermarks), dict(self.heads), self.lines)


Rule = Callable[..., None]


def powered(method: Rule) -> Rule:
    """A rule during which the power may go; the machine starts again then."""

    @functools.wraps(method)
    def run(self: PowerLossMachine, **arguments: object) -> None:
        try:
            method(self, **arguments)
        except PowerLoss:
            self.start_after_loss(*self.armed)

    return run


class PowerLossMachine(RuleBasedStateMachine):
    """A daemon and its disk. `synced` was covered by a sync that returned, `written` was taken."""

    @initialize(max_bytes=st.sampled_from([1, 2_500, 1 << 40]))
    def begin(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.disk = SimulatedDisk()
        self.armed = (0, 0.0)
        self.synced = Told()
        self.written = Told()
        self.start()

    def start(self) -> None:
        self.store = LocalStore("/d", disk=self.disk, segment_bytes=1000, max_bytes=self.max_bytes)
        self.check(self.store.open_run(RUN, {"name": RUN}))

    def start_after_loss(self, seed: int, chance: float, fuse: int | None = None) -> None:
        """Lose power; with a fuse once more while the store recovers from that."""
        self.disk.lose_power(seed, chance)
        self.disk.fuse = fuse
        try:
            self.start()
        except PowerLoss:
            self.start_after_loss(seed + 1, chance)
        self.disk.fuse = None

    def append(self, batch: Batch) -> None:
        stream, count, size, level = batch
        if stream not in self.written.watermarks:
            self.tell(stream, 0)
        first = self.written.watermarks[stream]
        header, payload = seal(
            Header(stream=stream, first=first, count=count, level=level), payload_of(stream, first, count, size)
        )
        self.store.append(RUN, header, payload)
        self.written.watermarks[stream] = header.end

    def tell(self, stream: bytes, head: int) -> None:
        self.store.put_stream(RUN, stream, StreamInfo(Origin("node1", 7), head=head))
        self.written.watermarks.setdefault(stream, 0)
        self.written.heads[stream] = head

    @rule(batches=st.lists(batches, min_size=1, max_size=6))
    @powered
    def append_batches(self, batches: list[Batch]) -> None:
        for batch in batches:
            self.append(batch)

    @rule(stream=st.sampled_from(STREAMS))
    @powered
    def learn_of_a_stream(self, stream: bytes) -> None:
        self.tell(stream, self.written.heads.get(stream, 0) + 1)

    @rule()
    @powered
    def add_a_control_line(self) -> None:
        self.store.append_control(RUN, {"line": self.written.lines})
        self.written.lines += 1

    @rule(meanwhile=st.lists(batches, max_size=4))
    @powered
    def sync(self, meanwhile: list[Batch]) -> None:
        """As the second thread does it, with what the first appends while it waits."""
        covered, due = self.written.copy(), self.store.written
        todo = list(meanwhile)

        def go_on() -> None:
            while todo:
                self.append(todo.pop())

        self.disk.meanwhile = go_on
        try:
            assert self.store.sync() >= due
        finally:
            self.disk.meanwhile = lambda: None
        self.synced = covered

    @rule()
    @powered
    def fail_to_sync(self) -> None:
        """The kernel says it once, and has thrown the pages away."""
        self.append((STREAMS[0], 1, 1, 10))
        self.disk.failing = True
        with pytest.raises(RunFailed, match="sync failed"):
            self.store.sync()
        self.disk.failing = False
        for _ in range(2):
            with pytest.raises(RunFailed):
                self.store.sync()
            with pytest.raises(RunFailed):
                self.append((STREAMS[0], 1, 1, 10))
        self.disk.failing = True
        with contextlib.suppress(StoreError):  # where something must be cut first
            self.store.open_run(RUN, {})
        self.disk.failing = False
        self.check(self.store.open_run(RUN, {}))

    @rule()
    @powered
    def remove_what_is_too_much(self) -> None:
        while self.store.retain():
            pass

    @rule()
    @powered
    def stop_and_start(self) -> None:
        covered = self.written.copy()
        self.store.close()
        self.synced = covered
        self.start()

    @rule()
    @powered
    def kill_and_start(self) -> None:
        """What was written stays in the kernel; opening syncs it."""
        for file in list(self.disk.files):
            self.disk.close(file)
        covered = self.written.copy()
        covered.lines = self.synced.lines
        self.start()
        assert self.written.watermarks == covered.watermarks
        self.synced = covered

    @rule(seed=st.integers(0, 2**32), chance=st.sampled_from([0.0, 0.5, 0.9, 1.0]), fuse=st.none() | st.integers(0, 30))
    def lose_power(self, seed: int, chance: float, fuse: int | None) -> None:
        self.start_after_loss(seed, chance, fuse)

    @rule(seed=st.integers(0, 2**32), chance=st.sampled_from([0.0, 0.5, 0.9, 1.0]), fuse=st.integers(0, 12))
    def lose_power_soon(self, seed: int, chance: float, fuse: int) -> None:
        """After so many more changes of the disk: in the middle of whatever comes next."""
        self.armed = (seed, chance)
        self.disk.fuse = fuse

    def check(self, stored: StoredRun) -> None:
        """What the store found is what was synced, and perhaps more of what was written; the ranks send the rest."""
        assert not [note for note in stored.notes if "missing" in note or "lost" in note], stored.notes
        for stream, watermark in self.synced.watermarks.items():
            assert watermark <= stored.streams[stream].watermark <= self.written.watermarks[stream]
            assert self.synced.heads[stream] <= stored.streams[stream].info.head <= self.written.heads[stream]
        lines = [line["line"] for line in self.store.read_control(RUN)]
        assert len(lines) >= self.synced.lines
        self.written = Told(
            {stream: item.watermark for stream, item in stored.streams.items()},
            {stream: item.info.head for stream, item in stored.streams.items()},
            len(lines),
        )
        self.check_records(stored)

    def check_records(self, stored: StoredRun) -> None:
        """Each record is there once or was removed and counted, in order, with its own payload."""
        watermarks: dict[bytes, int] = {}
        records = missing = 0
        frames, end = self.store.index(RUN, START, 10**6)
        assert end <= self.store.end(RUN)
        for header, place in frames:
            payload = self.store.read(RUN, place.segment, place.offset + HEADER_BYTES, header.size)
            check_payload(header, payload)
            expected = watermarks.get(header.stream, 0)
            if header.kind is Kind.STREAM:
                unpack_stream(header, payload)
            else:
                assert header.stream in watermarks, "the stream frame comes before the first batch"
                assert header.first >= expected, "a record is there twice"
                assert payload == payload_of(header.stream, header.first, header.count, header.size)
                records += header.count
            missing += max(header.first - expected, 0)
            watermarks[header.stream] = max(expected, header.end)
        assert watermarks == {stream: item.watermark for stream, item in stored.streams.items()}
        assert records == sum(item.records for item in stored.streams.values())
        assert missing == stored.removed


PowerLossMachine.TestCase.settings = settings(max_examples=250, stateful_step_count=30, report_multiple_bugs=False)
TestPowerLoss = PowerLossMachine.TestCase
