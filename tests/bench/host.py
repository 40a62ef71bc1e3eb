"""What the agent of a host costs, whole: run me with `python tests/bench/host.py [--quick]`.

A real `tlogs-collector`, a real agent, and ranks that are forks with an outbox each, registered as workers are:
the agent's CPU a record while all ranks log as fast as the agent takes it (compression in it; `agent.py` tells the
parts apart), its memory, its CPU while nothing happens, and the start of 200 workers at once.
"""

from __future__ import annotations

import argparse
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from daemon import Daemon
from machine import cpu_s
from tlogs.access import agent_messages as m
from tlogs.access.agent_place import find_place
from tlogs.access.agent_start import connect
from tlogs.outbox.outbox import Outbox

ARGUMENTS = (1, 0.123456, "3e-4", 8192, 1.5, "cuda:0")
TEMPLATE = "step %d: loss %.6f, learning rate %s, %d tokens in %.3f s on %s"
IN_FLIGHT = 100_000
"""Records that a rank is ahead of the collector at most, so that its outbox never overflows."""

GOAL_MIB, GOAL_MIB_A_WORKER = 40, 0.3


class Rank:
    """A fork that registers and logs when it is told to, a byte at a time over a pipe."""

    def __init__(self, daemon: Daemon, number: int, records: int) -> None:
        self._said, say = os.pipe()
        hear, self._tell = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._said)
            os.close(self._tell)
            status = 1
            try:
                _be_rank(daemon, number, records, lambda: os.read(hear, 1) != b"", lambda: os.write(say, b"."))
                status = 0
            finally:
                os._exit(status)
        os.close(say)
        os.close(hear)

    def goes_on(self) -> None:
        """Tell it to take the next step."""
        os.write(self._tell, b".")

    def waits(self) -> None:
        """Wait until it has taken a step."""
        if not os.read(self._said, 1):
            raise RuntimeError("a rank failed")

    def ends(self) -> None:
        """Tell it to end, and wait until it has."""
        self.goes_on()
        os.close(self._tell)
        os.waitpid(self._pid, 0)
        os.close(self._said)


def _be_rank(daemon: Daemon, number: int, records: int, wait: Callable[[], bool], say: Callable[[], object]) -> None:
    path = daemon.outboxes / f"host-{os.getpid()}-{number:08x}.outbox"
    origin = {
        "host": "host",
        "pid": os.getpid(),
        "rank": number,
        "world_size": 512,
        "key": "bench",
        "outbox": str(path),
    }
    collector, stream = daemon.environ["TLOGS_COLLECTOR"], number.to_bytes(16, "big")
    outbox = Outbox(path, stream=stream, meta={"endpoint": collector, "origin": origin}, capacity=64 << 20)
    wait()
    fd = connect(collector, daemon.environ, start=True)
    assert fd is not None
    line = socket.socket(fileno=fd)
    line.setblocking(True)
    message = m.Register("bench", stream, origin, collector, None, None, False, "host")
    socket.send_fds(line, [m.encode(message)], [outbox.fd])
    decoder = m.Decoder()
    while not any(isinstance(one, m.Registered) and one.state == "connected" for one in decoder.feed(line.recv(65536))):
        pass
    say()
    wait()
    for index in range(records):
        outbox.append(20, "bench.host", TEMPLATE, ARGUMENTS, None, "host.py", 1, "f", "MainThread", None)
        while index % 1000 == 0 and outbox.head - outbox.acknowledged > IN_FLIGHT:
            time.sleep(0.001)
    while outbox.acknowledged < outbox.head:
        time.sleep(0.002)
    say()
    wait()


def agent_of(daemon: Daemon) -> int:
    """The agent's process; there must be one."""
    place = find_place(daemon.environ["TLOGS_COLLECTOR"], daemon.environ)
    assert place is not None
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if place.name.encode() in words and words[0] != b"sh":
            found.append(int(path.parent.name))
    [pid] = found
    return pid


def memory_mib(pid: int) -> float:
    """What process *pid* has in memory, and shares with nobody but its like."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no memory in /proc")


def measure(ranks: int, records: int, idle_s: float) -> tuple[float, float, float, float]:
    """Start in seconds, µs of the agent's CPU a record, its memory in MiB, and its CPU while idle in percent."""
    with Daemon() as daemon:
        found = [Rank(daemon, number, records) for number in range(ranks)]
        began = time.monotonic()
        for rank in found:
            rank.goes_on()
        for rank in found:
            rank.waits()
        start_s = time.monotonic() - began
        pid = agent_of(daemon)
        before_s = cpu_s(pid)
        for rank in found:
            rank.goes_on()
        for rank in found:
            rank.waits()
        used_s = cpu_s(pid) - before_s
        memory = memory_mib(pid)
        time.sleep(idle_s / 2)
        before_s = cpu_s(pid)
        time.sleep(idle_s)
        idle = 100 * (cpu_s(pid) - before_s) / idle_s
        for rank in found:
            rank.ends()
        daemon.end()
    return start_s, 1e6 * used_s / max(ranks * records, 1), memory, idle


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few ranks and records: whether it runs")
    quick = parser.parse_args().quick
    rows = [(2, 1000), (4, 100)] if quick else [(1, 300_000), (8, 100_000), (64, 10_000), (200, 100)]
    print(
        "host: one agent, its workers in a burst; CPU a record with compression and sending, goal 40 MiB + 0.3 a rank"
    )
    print(f"{'ranks':>6}{'all connected':>16}{'µs CPU a record':>18}{'MiB':>8}{'goal':>8}{'idle, % of a core':>20}")
    for ranks, records in rows:
        start_s, cost, memory, idle = measure(ranks, records, 0.2 if quick else 4.0)
        goal = GOAL_MIB + GOAL_MIB_A_WORKER * ranks
        print(f"{ranks:>6}{start_s:>14.2f} s{cost:>18.2f}{memory:>8.1f}{goal:>8.1f}{idle:>20.2f}")


if __name__ == "__main__":
    main()
