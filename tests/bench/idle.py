"""What tlogs uses while nothing happens: run me with `python tests/bench/idle.py [--quick]`.

A real `tlogs-collector` and eight processes that call `tlogs.init()` and then wait, so that all the processor time
they use is that of tlogs' threads. Once with nobody listening, once while an operator follows the run, which makes
the ranks' heartbeats ten times as frequent.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

from daemon import Daemon
from machine import cpu_s
from tlogs.access.connection import Operator

RANKS = 8
RANK = (
    "import sys, tlogs; tlogs.init(); print('up' if tlogs.flush(10) else 'no collector', flush=True); sys.stdin.read()"
)
TIMEOUT_S = 30.0


class Follower(threading.Thread):
    """Somebody who follows, as `tlogs tail` does."""

    def __init__(self, daemon: Daemon) -> None:
        super().__init__(daemon=True)
        self._operator = Operator(daemon.address)
        self._ended = threading.Event()

    def __enter__(self) -> Follower:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self.join()
        self._operator.close()

    def run(self) -> None:
        self._operator.follow(None)
        while not self._ended.is_set():
            self._operator.news(0.1)


def rank(stack: ExitStack, daemon: Daemon, number: int) -> int:
    """A rank that is up and does nothing; its process."""
    labels = {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(RANKS)}
    process = subprocess.Popen(
        [sys.executable, "-c", RANK],
        env={**daemon.environ, **labels, "TLOGS_RUN": "idle"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    stack.callback(process.communicate, timeout=TIMEOUT_S)  # closes its standard input, at which it ends
    assert process.stdout is not None
    if (said := process.stdout.readline().strip()) != "up":
        raise RuntimeError(f"rank {number} did not come up: {said or process.wait(TIMEOUT_S)}")
    return process.pid


def shares(pids: list[int], span_s: float) -> list[float]:
    """What each process uses during the next *span_s* seconds, in percent of a core."""
    time.sleep(min(1.0, span_s))  # what has just begun is no idling
    before, began = [cpu_s(pid) for pid in pids], time.monotonic()
    time.sleep(span_s)
    took = time.monotonic() - began
    return [100 * (cpu_s(pid) - used) / took for pid, used in zip(pids, before, strict=True)]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a fraction of a second: whether it runs")
    span_s = 0.2 if parser.parse_args().quick else 10.0
    with Daemon() as daemon:
        with ExitStack() as stack:
            pids = [daemon.pid, *(rank(stack, daemon, number) for number in range(RANKS))]
            alone = shares(pids, span_s)
            with Follower(daemon):
                followed = shares(pids, span_s)
        daemon.end()
    print(f"idle: {RANKS} ranks that log nothing, over {span_s:g} s, percent of a core; goal: under 1")
    print(f"{'':<24}{'collector':>12}{'a rank, median':>18}{'a rank, worst':>16}")
    for name, (collector, *ranks) in [("nobody follows", alone), ("an operator follows", followed)]:
        print(f"{name:<24}{collector:>12.2f}{statistics.median(ranks):>18.2f}{max(ranks):>16.2f}")


if __name__ == "__main__":
    main()
