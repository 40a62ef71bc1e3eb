"""What an enabled logging call costs: run me with `python tests/bench/call.py [--rounds N] [--json]`.

Every way gets the same records (some 170 bytes as text) from one thread, in rounds that take turns; the figures are
medians of the rounds. *Burst*: one call after the other. *Paced*: one call each half millisecond, with cold caches.
*CPU* is the whole process's, its background threads included, until the last record of a burst has left it; *agent* is
that of the process that empties the outbox, of which `agent.py` measures the parts.

The tlogs of this table is the shipped intake and outbox, with a process that reads, compresses and acknowledges every
20 ms in the place of the agent.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import logging.handlers
import os
import queue
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from tlogs.outbox.outbox import Outbox
from tlogs.worker.intake import Intake

BURST = 4000
PACED = 250
PAUSE_S = 0.0005

Way = Callable[[logging.Logger], Iterator[Callable[[], None]]]
"""Attaches itself to the logger, gives what waits until nothing is on its way, and takes itself off."""


def null(log: logging.Logger) -> Iterator[Callable[[], None]]:
    """The calling side of logging, and nothing else."""
    yield from _handled(log, logging.NullHandler())


def stream(log: logging.Logger) -> Iterator[Callable[[], None]]:
    """A line of text into /dev/null."""
    with open(os.devnull, "w") as file:
        yield from _handled(log, _text_handler(file))


def queued(log: logging.Logger) -> Iterator[Callable[[], None]]:
    """A queue, and a thread that writes the lines."""
    lines: queue.Queue[logging.LogRecord] = queue.Queue()
    with open(os.devnull, "w") as file:
        listener = logging.handlers.QueueListener(lines, _text_handler(file))
        listener.start()
        try:
            for _ in _handled(log, logging.handlers.QueueHandler(lines)):
                yield lines.join
        finally:
            listener.stop()


def sent(log: logging.Logger) -> Iterator[Callable[[], None]]:
    """Python's own SocketHandler, to a process that reads and throws away."""
    sink = "import socket\ns = socket.create_server(('127.0.0.1', 0))\nprint(s.getsockname()[1], flush=True)\n"
    sink += "c = s.accept()[0]\nwhile c.recv(1 << 20): pass"
    with subprocess.Popen([sys.executable, "-c", sink], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        handler = logging.handlers.SocketHandler("127.0.0.1", port)
        handler.createSocket()
        assert isinstance(handler.sock, socket.socket)
        yield from _handled(log, handler)
        handler.close()


def torchs(log: logging.Logger) -> Iterator[Callable[[], None]]:
    """The handler that torch puts on its loggers, into /dev/null."""
    from torch._logging import _internal

    with open(os.devnull, "w") as file:
        handler = logging.StreamHandler(file)
        handler.setFormatter(_internal._default_formatter())
        yield from _handled(log, handler)


def tlogs(log: logging.Logger) -> Iterator[Callable[[], None]]:
    """The intake and the outbox, emptied by a process."""
    with tempfile.TemporaryDirectory() as directory:
        outbox = Outbox(Path(directory, "outbox"), stream=bytes(16), meta={}, capacity=64 << 20)
        intake = Intake(outbox.append)

        def drain() -> None:
            while outbox.acknowledged < outbox.head:
                time.sleep(0.005)

        with Emptier(outbox.path, "compressed") as emptier:
            intake.install()
            try:
                for _ in _handled(log, logging.NullHandler()):
                    _emptiers.append(emptier)
                    yield drain
            finally:
                _emptiers.clear()
                intake.uninstall()
        assert not outbox.dropped, "the bench is faster than the outbox is emptied"
        outbox.close(delete=True)


class Emptier:
    """The process beside: see `emptier.py`."""

    def __init__(self, path: str, how: str) -> None:
        command = [sys.executable, str(Path(__file__).with_name("emptier.py")), path, how]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> Emptier:
        self._answer()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def so_far(self) -> tuple[int, float]:
        """The records that it has taken, and the CPU time that this took, in seconds."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> tuple[int, float]:
        assert self._process.stdout is not None
        taken, cpu_s = self._process.stdout.readline().split()
        return int(taken), float(cpu_s)


_emptiers: list[Emptier] = []
"""The one at work."""


def _handled(log: logging.Logger, handler: logging.Handler) -> Iterator[Callable[[], None]]:
    log.addHandler(handler)
    try:
        yield lambda: None
    finally:
        log.removeHandler(handler)


def _text_handler(file: TextIO) -> logging.Handler:
    handler = logging.StreamHandler(file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(process)d %(name)s:%(lineno)d] %(message)s"))
    return handler


WAYS: dict[str, Way] = {
    "NullHandler": null,
    "StreamHandler": stream,
    "QueueHandler": queued,
    "SocketHandler": sent,
    "torch's handler": torchs,
    "tlogs": tlogs,
}


def call(log: logging.Logger, step: int) -> None:
    """One record as training scripts write them."""
    log.info(
        "step %d: loss %.6f, learning rate %s, %d tokens in %.3f s on %s", step, 0.123456, "3e-4", 8192, 1.5, "cuda:0"
    )


def calls(log: logging.Logger, count: int, pause_s: float) -> list[int]:
    """The duration of each call in nanoseconds."""
    clock, found = time.perf_counter_ns, []
    for step in range(count):
        if pause_s:
            time.sleep(pause_s)
        begin = clock()
        call(log, step)
        found.append(clock() - begin)
    return found


def measure(log: logging.Logger, way: Way) -> dict[str, float]:
    """One round of one way; times in microseconds."""
    found: dict[str, float] = {}
    with contextmanager(way)(log) as drain:
        calls(log, 200, 0)
        drain()
        agent = [emptier.so_far()[1] for emptier in _emptiers]
        cpu = time.process_time()
        burst = sorted(calls(log, BURST, 0))
        drain()
        found["cpu"] = (time.process_time() - cpu) / BURST * 1e6
        agent_s = sum(emptier.so_far()[1] for emptier in _emptiers) - sum(agent)
        found["agent"] = agent_s / BURST * 1e6
        paced = sorted(calls(log, PACED, PAUSE_S))
        for name, times in (("burst", burst), ("paced", paced)):
            found[name] = times[len(times) // 2] / 1000
            found[f"{name}_p99"] = times[len(times) * 99 // 100] / 1000
    return found


def disabled(log: logging.Logger) -> float:
    """A call below the level, in microseconds."""
    begin = time.perf_counter()
    for step in range(20_000):
        log.debug("step %d", step)
    return (time.perf_counter() - begin) / 20_000 * 1e6


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    log = logging.getLogger("bench.call")
    log.setLevel(logging.INFO)
    log.propagate = False
    ways = dict(WAYS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, about numpy
            importlib.import_module("torch._logging")
    except ImportError:
        del ways["torch's handler"]
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, way in ways.items():
            rounds[name].append(measure(log, way))
    table = {
        name: {key: round(statistics.median(one[key] for one in found), 2) for key in found[0]}
        for name, found in rounds.items()
    }
    # A ratio is taken within each round, because what else the machine does changes from round to round.
    for name, found in rounds.items():
        for key in ("burst", "paced"):
            ratios = [one[key] / base[key] for one, base in zip(found, rounds["NullHandler"], strict=True)]
            table[name][f"{key}_ratio"] = round(statistics.median(ratios), 2)
    if options.json:
        print(json.dumps(table))
        return
    titles = f"{'burst p50':>10} {'ratio':>6} {'p99':>7}   {'paced p50':>10} {'ratio':>6} {'p99':>7}"
    print(f"{'µs':16} {titles}   {'CPU':>6} {'agent':>6}")
    for name, row in table.items():
        print(
            f"{name:16} {row['burst']:10.2f} {row['burst_ratio']:6.2f} {row['burst_p99']:7.1f}   "
            f"{row['paced']:10.2f} {row['paced_ratio']:6.2f} {row['paced_p99']:7.1f}   "
            f"{row['cpu']:6.2f} {row['agent']:6.2f}"
        )
    without = min(disabled(log) for _ in range(5))
    with contextmanager(tlogs)(log):
        print(f"a disabled call: {without:.3f} without, {min(disabled(log) for _ in range(5)):.3f} with tlogs")


if __name__ == "__main__":
    main()
