"""Real collectors, workers and commands: started for one test, in directories of its own, and gone after it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest
from tests.limits import scaled

import tlogs

T = TypeVar("T")

DEADLINE_S: Final = scaled(60.0)
"""Nothing here takes a tenth of it, but the machine may be busy."""

POLL_S: Final = 0.02
LAB_VARIABLE: Final = "LAB"
"""Marks every process of a test, also those that leave its process group."""

READY: Final = re.compile(r"tlogs-collector: listening on (tcp://\S+), storing in (/\S+)\n")
CLOSING: Final = re.compile(
    r"tlogs-collector: run (?P<name>\S+): (?P<ranks>\d+) ranks?, (?P<records>\d+) records?, (?P<dropped>\d+) dropped, "
    r"(?P<lost>\d+) lost(?:; ranks? (?P<wordless>\S+) ended without a word)?"
)

WORKER: Final = """\
import logging, os, sys
import tlogs
session = tlogs.init()
log = logging.getLogger("job")
log.setLevel(logging.DEBUG)
"""
"""How the workers of these tests begin."""


def wait_for(found: Callable[[], T], what: str = "", deadline_s: float = DEADLINE_S) -> T:
    """Ask again and again until *found* returns something that holds, and return that."""
    deadline = time.monotonic() + deadline_s
    while not (value := found()):
        assert time.monotonic() < deadline, f"waited {deadline_s:g} s in vain{': ' if what else ''}{what}"
        time.sleep(POLL_S)
    return value


LIFE: Final = re.compile(r"rank \d+ attempt \d+ (began on|finished|failed|was killed by|ended)\b")
"""How the records of a rank's start and end begin."""


def is_life(record: Mapping[str, Any]) -> bool:
    """Whether this record tells of a rank's start or end: not of what a program logged."""
    return record["stream"] == "tlogs" and LIFE.match(record["message"]) is not None


@dataclass(frozen=True)
class Closing:
    """A closing line; `records` are those that the programs logged, without a rank's start and end."""

    name: str
    ranks: int
    records: int
    dropped: int
    lost: int
    wordless: str | None


class Process:
    """A process with what it prints in two files."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], directory: Path, name: str) -> None:
        self._out, self._err = directory / f"{name}.out", directory / f"{name}.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.popen = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                env=dict(environ),
                cwd=directory,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def out(self) -> str:
        """What it has printed so far."""
        return self._out.read_text()

    @property
    def messages(self) -> list[str]:
        """The messages of the records that it has printed, without a rank's start and end."""
        return [text for line in self.out.splitlines() if not LIFE.match(text := line.rpartition("] ")[2])]

    @property
    def err(self) -> str:
        """What it has printed on standard error so far."""
        return self._err.read_text()

    def tell(self, line: str = "") -> None:
        """Write a line to its standard input."""
        assert self.popen.stdin is not None
        self.popen.stdin.write(line.encode() + b"\n")
        self.popen.stdin.flush()

    def says(self, text: str) -> None:
        """Wait until it has printed *text*."""
        wait_for(lambda: text in self.out or self.popen.poll() is not None, f"{text!r}, found {self.out!r} {self.err}")
        assert text in self.out, f"{text!r}, found {self.out!r} {self.err}"

    def ends(self, status: int = 0) -> str:
        """Wait until it ends with this status; what it printed on standard error."""
        found = self.popen.wait(DEADLINE_S)
        assert found == status, f"ended with {found}, expected {status}: {self.err[-4000:]}"
        return self.err

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it where it stands."""
        self.popen.kill()
        self.popen.wait()

    def clear(self) -> None:
        """Kill it and what belongs to it."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.popen.wait()
        if self.popen.stdin is not None:
            try:
                self.popen.stdin.close()
            except BrokenPipeError:
                pass


class Collector(Process):
    """A collector that was ready for ranks when the test got it."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], directory: Path, name: str) -> None:
        super().__init__(command, environ, directory, name)
        wait_for(lambda: "\n" in self.err or self.popen.poll() is not None, "a ready line")
        ready = READY.match(self.err)
        assert ready is not None, f"the first line is no ready line: {self.err}"
        self.endpoint = ready[1]
        self.port = int(self.endpoint.rpartition(":")[2])
        self.directory = Path(ready[2])

    def stop(self) -> list[Closing]:
        """Ask it to end, and wait: what its closing lines say."""
        self.signal(signal.SIGTERM)
        return self.closes()

    def closes(self) -> list[Closing]:
        """Wait until it has ended: what its closing lines say."""
        closings = []
        for line in self.ends().splitlines():
            if found := CLOSING.fullmatch(line):
                ranks, records, dropped, lost = (int(found[name]) for name in ("ranks", "records", "dropped", "lost"))
                ours = [record.asdict() for record in tlogs.read(str(self.directory / found["name"]), stream="tlogs")]
                records -= sum(map(is_life, ours))
                closings.append(Closing(found["name"], ranks, records, dropped, lost, found["wordless"]))
        return closings


class Lab:
    """A place where a test starts processes: directories for stores, outboxes and the list of live collectors."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.outboxes = root / "outboxes"
        self.sockets = root / "run"
        self.sockets.mkdir(mode=0o700)
        self._mark = uuid.uuid4().hex
        self._processes: list[Process] = []
        self._inside: list[str] = []
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TLOGS_", "TORCH", "SLURM"))}
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            kept.pop(name, None)
        self.environ = {
            **kept,
            "HOME": str(root),
            "XDG_STATE_HOME": str(root / "state"),
            "TLOGS_OUTBOX_DIR": str(self.outboxes),
            "XDG_RUNTIME_DIR": str(self.sockets),
            LAB_VARIABLE: self._mark,
        }

    def start(self, command: Sequence[str], environ: Mapping[str, str] = {}, kind: type[Process] = Process) -> Any:
        """Start a process; *environ* is added to what all have."""
        name = f"process{len(self._processes)}"
        process = kind([*self._inside, *command], {**self.environ, **environ}, self.root, name)
        self._processes.append(process)
        return process

    def collector(self, *options: str, port: int = 0, name: str = "runs", **environ: str) -> Collector:
        """Start a collector; without a *port* on any."""
        return self.collector_anywhere("--listen", f"tcp://127.0.0.1:{port}", *options, name=name, **environ)

    def collector_anywhere(self, *options: str, name: str = "runs", **environ: str) -> Collector:
        """Start a collector that listens where *options* say."""
        command = [sys.executable, "-m", "tlogs_collector", "--dir", str(self.root / name), *options]
        process: Collector = self.start(command, environ, _Collector)
        return process

    def worker(
        self, script: str, rank: int | None = 0, world_size: int = 1, *, collector: Any = None, **environ: str
    ) -> Process:
        """Start a worker: WORKER and then *script*; its standard input is the test's `tell`."""
        given = {**self.rank(rank, world_size, collector), **environ}
        process: Process = self.start([sys.executable, "-c", WORKER + script], given)
        return process

    @contextmanager
    def inside(self, namespace: str) -> Iterator[None]:
        """Start what is started meanwhile inside a network namespace."""
        self._inside = ["ip", "netns", "exec", namespace]
        yield
        self._inside = []

    @staticmethod
    def rank(rank: int | None = 0, world_size: int = 1, collector: Any = None) -> dict[str, str]:
        """The environment of a rank, as a launcher would set it."""
        given = {"PYTHONUNBUFFERED": "1"}
        if collector is not None:
            given["TLOGS_COLLECTOR"] = getattr(collector, "endpoint", collector)
        if rank is not None:
            given |= {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}", "WORLD_SIZE": f"{world_size}"}
            given |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
        return given

    def start_tlogs(self, *arguments: str, **environ: str) -> Process:
        """Start a command."""
        process: Process = self.start([sys.executable, "-m", "tlogs", *arguments], environ)
        return process

    def tlogs(self, *arguments: str, status: int = 0, **environ: str) -> str:
        """Run a command that must end with *status*: what it printed, or for a failure its standard error."""
        process = self.start_tlogs(*arguments, **environ)
        err = process.ends(status)
        return err if status == 2 else process.out

    def cat(self, *arguments: str, name: str = "runs") -> list[dict[str, Any]]:
        """What the programs logged, as `tlogs cat --json` prints it, numbered without the records of start and end."""
        before: Counter[tuple[str, int]] = Counter()
        found = []
        for record in self.cat_all(*arguments, name=name):
            process = (record["host"], record["pid"])
            if is_life(record):
                before[process] += 1
            else:
                found.append({**record, "seq": record["seq"] - before[process]})
        return found

    def cat_all(self, *arguments: str, name: str = "runs") -> list[dict[str, Any]]:
        """Every stored record, as `tlogs cat --json` prints it."""
        found = self.tlogs("cat", "--json", *arguments, "--dir", str(self.root / name))
        return [json.loads(line) for line in found.splitlines()]

    def stored(self, collector: Collector) -> int:
        """How many records all runs in the collector's directory hold, without a rank's start and end."""
        count = 0
        for run in tlogs.runs(collector.directory):
            ours = [record.asdict() for record in tlogs.read(str(run.path), stream="tlogs")]
            count += run.records - sum(map(is_life, ours))
        return count

    def wait_for_more(self, collector: Collector, count: int = 1) -> None:
        """Wait until so many records more are stored than now."""
        goal = self.stored(collector) + count
        wait_for(lambda: self.stored(collector) >= goal, "more records stored")

    @staticmethod
    def wait_for(found: Callable[[], Any], what: str = "") -> Any:
        """Ask again and again until *found* returns something that holds, and return that."""
        return wait_for(found, what)

    def clear(self) -> None:
        """Kill all, also those that left their group."""
        for process in self._processes:
            process.clear()
        for pid in (*self.marked(), *self.agents()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def agents(self) -> list[int]:
        """The agents of this test that live: they have an environment of their own."""
        directory = str(self.sockets / "tlogs").encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if directory in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
            except OSError:
                pass  # it has ended
        return found

    def marked(self) -> list[int]:
        """The processes of this test that live, where the system says so."""
        mark = f"{LAB_VARIABLE}={self._mark}".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if mark in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
            except OSError:
                pass  # it has ended, or belongs to somebody else
        return found


_Collector = Collector


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A place to start processes in."""
    lab = Lab(tmp_path)
    yield lab
    lab.clear()


@pytest.fixture
def by_rank() -> Callable[[list[dict[str, Any]]], dict[int, list[int]]]:
    """Gives each rank's sequence numbers, in the order of the records that it is given."""

    def split(records: list[dict[str, Any]]) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for record in records:
            found.setdefault(record["rank"], []).append(record["seq"])
        return found

    return split
