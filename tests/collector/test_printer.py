"""The process that prints the daemon's stream, which is played."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tlogs_collector.printer import Printer


class Process:
    """`tlogs tail`."""

    def __init__(self, command: list[str], **options: Any) -> None:
        self.command, self.options = command, options
        self.status: int | None = None
        self.is_terminated = False

    def poll(self) -> int | None:
        return self.status

    def terminate(self) -> None:
        self.is_terminated = True

    def wait(self) -> None:
        self.status = -15


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Process]:
    found: list[Process] = []

    def begin(command: list[str], **options: Any) -> Process:
        found.append(Process(command, **options))
        return found[-1]

    monkeypatch.setattr("tlogs_collector.printer.subprocess", SimpleNamespace(Popen=begin, DEVNULL=-3))
    return found


def test_it_follows_every_run_of_this_daemon_and_ends_with_it(begun: list[Process]) -> None:
    made = Printer(Path("/runs/collector.json"))
    [process] = begun
    assert process.command[:4] == [sys.executable, "-m", "tlogs", "tail"]
    options = " ".join(process.command[4:])
    assert options == f"--collector /runs/collector.json --run * -n all --pid {os.getpid()}"
    assert process.options["start_new_session"], "Ctrl-C is for the daemon alone"
    assert made.is_running()
    made.end()
    assert process.is_terminated
    assert not made.is_running()


def test_one_that_has_ended_is_not_ended_again(begun: list[Process]) -> None:
    made = Printer(Path("/runs/collector.json"))
    begun[0].status = 0
    made.end()
    assert not begun[0].is_terminated
