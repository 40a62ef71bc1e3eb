"""Writer and reader in two processes: each record has the number that is its text, however pieces are reused."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlogs.outbox.outbox import Outbox
from tlogs.outbox.reader import Reader, open_outbox
from tlogs.outbox.ring import Extent
from tlogs_shared.storage.record import unpack_all

pytestmark = pytest.mark.multiprocess

SMALL = 64 * 1024  # two pieces, so that nearly each step uses one anew
SCANS = 188


def put(outbox: Outbox, size: int) -> bool:
    """Log a record whose text begins with its number."""
    number = outbox.head + bool(outbox._drops.untold)  # what was dropped is told first
    return outbox.append(40, "a", f"{number} {'x' * size}", None, None, "a.py", 1, "f", "MainThread", None)


def obey(path: str, commands: Connection) -> None:
    """The writer of the state machine: does what it is told, and answers with its head."""
    outbox = Outbox(path, stream=bytes(16), meta={}, capacity=SMALL)
    while True:
        commands.send(outbox.head)
        match commands.recv():
            case "append", count, size:
                for _ in range(count):
                    put(outbox, size)
            case ("trim",):
                outbox.trim()
            case ("die",):
                commands.send(outbox.head)
                os.kill(os.getpid(), signal.SIGKILL)
            case other:
                raise AssertionError(other)


def run_free(path: str, commands: Connection) -> None:
    """A writer that logs as fast as it can, and waits for room only by asking for it, until it is killed."""
    outbox = Outbox(path, stream=bytes(16), meta={}, capacity=SMALL)
    commands.send(outbox.head)
    size, parent = 0, os.getppid()
    while os.getppid() == parent:
        size = (size * 7 + 13) % 3000
        if not put(outbox, size):
            os.sched_yield()


@contextmanager
def writer(work: Any) -> Iterator[tuple[str, Connection, multiprocessing.process.BaseProcess]]:
    """The path of an outbox, the connection to the process that writes it, and that process."""
    with tempfile.TemporaryDirectory() as directory:
        path = str(Path(directory, "outbox"))
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(path, theirs), daemon=True)
        process.start()
        ours.recv()
        try:
            yield path, ours, process
        finally:
            process.kill()
            process.join()


def check(extent: Extent) -> None:
    """Compare the records' numbers with their texts."""
    found = list(unpack_all(bytes(extent.view)))
    assert len(found) == extent.count
    for number, record in enumerate(found, extent.first):
        text = record.template.partition(" ")[0]
        assert text in (str(number), "dropped"), f"record {number} says {text}"
    assert (found[0].ts, found[-1].ts) == (extent.first_ts, extent.last_ts)


class Taker:
    """The reader of the state machine, which checks that nothing is missing and nothing comes out of order."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.reader = self.opened()
        self.due = 0

    def opened(self) -> Reader:
        reader = open_outbox(self.path, settle_s=1e-9)
        assert reader.take()
        return reader

    def take(self, most: int = sys.maxsize) -> None:
        for _ in range(most):
            extent = self.reader.cut(True)
            if extent is None:
                return
            assert extent.first == self.due
            check(extent)
            self.due = extent.end

    def do(self, action: str, share: float) -> None:
        acknowledged = self.reader.acknowledged
        between = acknowledged + int(share * (self.due - acknowledged))
        match action:
            case "look":
                self.take(1)
            case "take":
                self.take()
            case "acknowledge":
                self.reader.acknowledge(between)
            case "rewind":
                self.reader.rewind(between)
                self.due = between
            case "again":
                # Another agent goes on, from the word in the file.
                self.reader.close()
                self.reader = self.opened()
                self.due = acknowledged
            case _:
                raise AssertionError(action)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 30), st.sampled_from([10, 700, 3000])),
        st.tuples(st.just("trim")),
        st.tuples(st.sampled_from(["look", "take", "acknowledge", "rewind", "again"]), st.sampled_from([0.5, 0.9, 1])),
    ),
    min_size=10,
    max_size=60,
)


@given(STEPS)
@settings(max_examples=25, deadline=None)
def test_each_record_is_taken_with_its_number_and_none_is_missing(steps: list[Any]) -> None:
    with writer(obey) as (path, commands, process):
        taker, head = Taker(path), 0
        for step in steps:
            if step[0] in ("append", "trim"):
                commands.send(step)
                head = commands.recv()
                assert taker.reader.head == head
            else:
                taker.do(*step)
        commands.send(("die",))
        head = commands.recv()
        process.join()
        assert not taker.reader.is_alive()
        taker.reader.seal()
        taker.take()
        assert taker.due == taker.reader.head == head
        taker.reader.close()


def test_a_scan_beside_a_writer_that_reuses_pieces_numbers_no_record_wrongly() -> None:
    """As with the first format, of which 60 extents in so many scans had wrong numbers."""
    with writer(run_free) as (path, _, process):
        taker = Taker(path)
        scans = taken = 0
        while scans < SCANS:
            taker.take()
            taker.reader.acknowledge(taker.due)
            # Another one, which has not taken the outbox: what it reads is used anew under its hands.
            other = open_outbox(path, settle_s=1e-9)
            for _ in range(100):
                if (extent := other.cut(True)) is not None:
                    check(extent)
                    taken += extent.count
                    scans += 1
                    break
                taker.take()
                taker.reader.acknowledge(taker.due)
            other.close()
        assert taken
        process.kill()
        process.join()
        taker.reader.seal()
        taker.take()
        assert taker.due == taker.reader.head
        taker.reader.close()
