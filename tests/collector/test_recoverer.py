"""What the daemon has brought in, when, and how often it is tried; `tlogs recover` itself is played."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tlogs_collector.recoverer import AWAITED_TRIES, MAX_TRIES, Recoverer
from tlogs_shared.host import outbox_name

DEAD_PID = 2**22 + 1
"""Beyond the largest process id there is."""


class Process:
    """`tlogs recover`, which ends when the test says so."""

    begun: list[Process] = []  # noqa: RUF012 - cleared by the fixture

    def __init__(self, command: list[str], **_: Any) -> None:
        self.outboxes = command[command.index("--") + 1 :]
        self.status: int | None = None
        self.is_terminated = False
        self.begun.append(self)

    def poll(self) -> int | None:
        return self.status

    def terminate(self) -> None:
        self.is_terminated = True

    def wait(self) -> None:
        self.status = -15


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock of one value that the test advances, and processes that it ends."""
    now = [100.0]
    monkeypatch.setattr("tlogs_collector.recoverer.time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr("tlogs_collector.recoverer.subprocess", SimpleNamespace(Popen=Process, DEVNULL=-3))
    Process.begun.clear()
    return now


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recoverer:
    monkeypatch.setattr("tlogs_collector.recoverer.outbox_places", lambda _: [tmp_path])
    return Recoverer(tmp_path / "collector.json", {})


def outbox(tmp_path: Path, pid: int = DEAD_PID) -> Path:
    path = tmp_path / outbox_name("node1", pid, pid.to_bytes(16, "big"))
    path.touch()
    return path


def test_without_anything_to_bring_in_nothing_is_begun(made: Recoverer, clock: list[float]) -> None:
    assert made.poll() is False
    assert Process.begun == []


def test_what_is_wanted_is_brought_in_one_process_at_a_time(made: Recoverer, clock: list[float]) -> None:
    made.want(["/b", "/a"])
    assert made.poll() is True
    made.want(["/c"])
    assert made.poll() is True
    assert [process.outboxes for process in Process.begun] == [["/a", "/b"]]
    Process.begun[0].status = 0
    assert made.poll() is True
    assert Process.begun[1].outboxes == ["/c"]
    Process.begun[1].status = 0
    assert made.poll() is False


def test_an_outbox_of_a_dead_process_is_found_once(made: Recoverer, clock: list[float], tmp_path: Path) -> None:
    found = outbox(tmp_path)
    outbox(tmp_path, os.getpid())
    (found.parent / "something.else").touch()
    (found.parent / "no-number.outbox").touch()
    assert made.poll() is True
    Process.begun[0].status = 0
    assert made.poll() is False
    assert [process.outboxes for process in Process.begun] == [[str(found)]]


def test_what_failed_is_tried_again_ever_later_and_then_left(
    made: Recoverer, clock: list[float], tmp_path: Path
) -> None:
    path = str(outbox(tmp_path))
    assert made.poll() is True
    for tries in range(1, MAX_TRIES):
        Process.begun[-1].status = 1
        assert made.poll() is (tries <= AWAITED_TRIES), "an ending daemon waits for the first few"
        assert len(Process.begun) == tries
        clock[0] += 2 ** (tries - 1)
        made.poll()
        assert len(Process.begun) == tries + 1
    Process.begun[-1].status = 1
    assert made.poll() is False
    clock[0] += 1000.0
    assert made.poll() is False
    assert {*map(tuple, (process.outboxes for process in Process.begun))} == {(path,)}


def test_what_failed_and_is_gone_is_not_tried_again(made: Recoverer, clock: list[float]) -> None:
    made.want(["/no/such.outbox"])
    made.poll()
    Process.begun[0].status = 1
    assert made.poll() is False


def test_at_the_end_what_is_under_way_is_ended(made: Recoverer, clock: list[float]) -> None:
    made.end()
    made.want(["/a"])
    made.poll()
    made.end()
    assert Process.begun[0].is_terminated
