"""A change of levels with every rank's answer: run me with `python tests/bench/broadcast.py [--ranks N…] [--quick]`.

A real `tlogs-collector`, an operator who calls `tlogs.connect().set_logs(...)`, and simulated ranks in a few processes:
each has a DEALER socket, a link and an outbox of its own, says hello, beats, answers with a report as a real rank's,
and logs a record about the lease, which is sent. Only the work on the loggers is left out, which real ranks do on
processors of their own. The clock runs from the call to its result, that is, to the last answer; *its CPU* is the
collector's part of it, and *welcomed* the time in which all of them came. The ranks take more of the processor than
the collector does: with two cores, or beside other work, the best round says more than the median.

Beside it: as many bare DEALER sockets that echo what a bare ROUTER sends to each, the least that ZeroMQ can do.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import selectors
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import zmq
import zstandard
from tlogs.worker.forwarder import COMPRESSION_LEVEL, moment
from tlogs.worker.link import Free, GoBack, Lay, Link, Send, State

import tlogs
from daemon import Daemon
from machine import cpu_s
from tlogs.access.discovery import Address
from tlogs.access.transport import dial
from tlogs.loggers.controller import LEVELS
from tlogs.outbox.outbox import Outbox
from tlogs.outbox.reader import open_outbox
from tlogs.outbox.ring import MIN_CAPACITY
from tlogs_collector.listener import raise_file_limit
from tlogs_shared.host import boot_id
from tlogs_shared.origin import Origin
from tlogs_shared.protocol import wire
from tlogs_shared.protocol.clock import Moment
from tlogs_shared.protocol.messages import Batch
from tlogs_shared.storage.batch import Header, seal

PROCESSES = 2
RANKS_A_PROCESS = 2500
"""Each rank takes some descriptors, of which one process seldom has more than 20,000."""

TIMEOUT_S = 60.0
SCAN_S = 0.05
"""How often it is looked which rank has a heartbeat or an old record to send."""

MESSAGE = bytes(200)
"""As large as the settings with one lease."""


class Rank:
    """A simulated rank: everything of a real one but its threads and its loggers."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], address: Address, number: int, world_size: int, outbox: Path
    ) -> None:
        stream = os.urandom(16)
        origin = Origin(
            "localhost", os.getpid(), boot_id(), rank=number, local_rank=number, world_size=world_size, run="broadcast"
        )
        self.outbox = Outbox(outbox, stream=stream, meta={}, capacity=MIN_CAPACITY)
        self.reader = open_outbox(outbox, settle_s=0)
        self.reader.take()
        self.link = Link(stream, origin, self.reader, secret=address.secret, nonce=os.urandom)
        self.socket = dial(context, address.endpoint, address.secret)
        self._compressor = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL)
        self._report = LEVELS.report()
        self._noted_s = 0.0

    def read(self) -> None:
        """Handle what has come; ZeroMQ's descriptor tells once, so nothing may be left."""
        while True:
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            now = moment()
            self._carry_out(self.link.handle(wire.decode(frames), now), now)

    def scan(self, now: Moment) -> None:
        """Do what time asks for."""
        if self.link.due_s() <= now.s:
            self._carry_out(self.link.tick(now), now)
            self.read()
        if self._noted_s and now.s - self._noted_s >= self.link.age_s and self.link.room:
            self._forward(now)
            self.read()

    def _forward(self, now: Moment) -> None:
        self._noted_s = 0.0
        while (extent := self.reader.cut(True)) is not None:
            header = Header(self.link.stream, level=extent.level, first=extent.first, count=extent.count)
            self._send(batch := Batch(*seal(header, extent.view, self._compressor)), now)
            self.link.sent(batch.header.end, batch.header.size, now)

    def _send(self, message: Any, now: Moment) -> None:
        try:
            self.socket.send_multipart(wire.encode(message), zmq.NOBLOCK)
        except zmq.Again:
            self.link.unsent(message, now)

    def _carry_out(self, actions: Sequence[Any], now: Moment) -> None:
        for action in actions:
            match action:
                case Send(message):
                    self._send(message, now)
                case Free(stored):
                    self.reader.acknowledge(stored)
                case GoBack(watermark):
                    self.reader.rewind(watermark)
                case Lay(revision, leases, began):
                    answers = {lease.revision: ("applied", "") for lease in leases}
                    for lease in began:
                        text = f"lease {lease.revision} began: c10d=DEBUG until 12:00:00 (by user@host)"
                        self.outbox.append(20, "tlogs", text, None, None, "", 0, "", "tlogs-forwarder", None)
                        self._noted_s = now.s
                    self._carry_out(self.link.laid(revision, answers, self._report), now)
                case _:
                    raise AssertionError(action)

    def close(self) -> None:
        """Send what is left, say bye and end."""
        now = moment()
        self._forward(now)
        self._carry_out(self.link.bye(), now)
        self.socket.close(linger=1000)
        self.reader.close()
        self.outbox.close(delete=True)


def simulate(parent: Connection, numbers: Sequence[int], address: Address, world_size: int, outboxes: Path) -> None:
    """A process of ranks, until the parent says otherwise."""
    with many_sockets() as context, selectors.DefaultSelector() as selector:
        ranks = [Rank(context, address, number, world_size, outboxes / f"{number}.outbox") for number in numbers]
        for rank in ranks:
            selector.register(rank.socket.FD, selectors.EVENT_READ, rank)
        selector.register(parent, selectors.EVENT_READ, None)
        began_s, scanned_s, waiting = time.monotonic(), 0.0, True
        while True:
            for key, _ in selector.select(SCAN_S):
                if key.data is None:
                    for rank in ranks:
                        rank.close()
                    return
                key.data.read()
            now = moment()
            if now.s - scanned_s >= SCAN_S:
                scanned_s = now.s
                for rank in ranks:
                    rank.scan(now)
                if waiting and all(rank.link.state is State.LIVE for rank in ranks):
                    waiting = False
                    parent.send((began_s, now.s))


def echo(parent: Connection, numbers: Sequence[int], endpoint: str) -> None:
    """A process of bare sockets that send back what they get."""
    with many_sockets() as context, selectors.DefaultSelector() as selector:
        sockets: list[zmq.Socket[bytes]] = []
        for _ in numbers:
            sockets.append(socket := context.socket(zmq.DEALER))
            socket.linger = 0
            socket.connect(endpoint)
            socket.send(b"hello")
            selector.register(socket.FD, selectors.EVENT_READ, socket)
        selector.register(parent, selectors.EVENT_READ, None)
        ready = sockets  # each has to be asked once before its descriptor tells of anything
        try:
            while None not in ready:
                for socket in ready:
                    while int(socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
                        socket.send(socket.recv())
                ready = [key.data for key, _ in selector.select()]
        finally:
            for socket in sockets:
                socket.close()


@contextmanager
def many_sockets() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    """A context for thousands of sockets."""
    raise_file_limit()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
    context.max_sockets = 65536
    try:
        yield context
    finally:
        context.term()


def start(stack: ExitStack, target: Callable[..., None], ranks: int, *args: Any) -> list[Connection]:
    """The processes, each with its share of the ranks; they end with *stack*."""
    context = multiprocessing.get_context("spawn")
    parents = []
    processes = max(PROCESSES, -(-ranks // RANKS_A_PROCESS))
    for number in range(processes):
        here, there = context.Pipe()
        process = context.Process(target=target, args=(there, range(ranks)[number::processes], *args), daemon=True)
        process.start()
        there.close()  # so that the end of the process is the end of the pipe
        stack.callback(process.join, TIMEOUT_S)
        stack.callback(here.close)  # at which the process ends
        parents.append(here)
    return parents


def settle_s(ranks: int) -> float:
    """How long to wait between two rounds: what the ranks have logged about the last one is stored by then."""
    return 0.5 + ranks / 4000


def broadcasts(ranks: int, rounds: int) -> tuple[float, list[tuple[float, float]]]:
    """Seconds until all ranks were welcomed; for each change the seconds to its result and the collector's CPU."""
    with Daemon() as daemon:
        times = []
        with ExitStack() as stack:
            parents = start(stack, simulate, ranks, daemon.address, ranks, daemon.outboxes)
            if not all(parent.poll(TIMEOUT_S) for parent in parents):
                raise RuntimeError(f"not all of {ranks} ranks are live after {TIMEOUT_S:g} s")
            began, ended = zip(*(parent.recv() for parent in parents), strict=True)
            with tlogs.connect(str(daemon.directory)) as job:
                for number in range(rounds):
                    time.sleep(settle_s(ranks))
                    level = logging.DEBUG if number % 2 else logging.INFO
                    used_s, start_s = cpu_s(daemon.pid), time.perf_counter()
                    result = job.set_logs(c10d=level, timeout=TIMEOUT_S)
                    times.append((time.perf_counter() - start_s, cpu_s(daemon.pid) - used_s))
                    if len(result.applied) != ranks:
                        raise RuntimeError(f"{len(result.applied)} of {ranks} answers: {result}")
        daemon.end()
    return max(ended) - min(began), times


def echoes(ranks: int, rounds: int) -> list[float]:
    """Seconds from the first message to the last answer, on bare sockets."""
    times = []
    with many_sockets() as context, ExitStack() as stack:
        router = stack.enter_context(context.socket(zmq.ROUTER))
        router.linger = 0
        router.setsockopt(zmq.BACKLOG, 4096)
        router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        port = router.bind_to_random_port("tcp://127.0.0.1")
        start(stack, echo, ranks, f"tcp://127.0.0.1:{port}")
        peers = [router.recv_multipart()[0] for _ in range(ranks)]
        for _ in range(rounds):
            began = time.perf_counter()
            for peer in peers:
                router.send_multipart([peer, MESSAGE])
            for _ in peers:
                router.recv_multipart()
            times.append(time.perf_counter() - began)
    return times


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, nargs="+", default=[100, 1000, 4000])
    parser.add_argument("--quick", action="store_true", help="a few ranks: whether it runs")
    options = parser.parse_args()
    rounds = 2 if options.quick else 9
    print(f"broadcast: a change of levels until the last answer, medians of {rounds} rounds; goal: 1,000 under 100 ms")
    columns = "".join(f"{name:>12}" for name in ["welcomed", "tlogs", "best", "worst", "its CPU"])
    print(f"{'ranks':>6}{columns}{'bare sockets':>16}{'ratio':>8}")
    for ranks in [10] if options.quick else options.ranks:
        welcomed_s, changes = broadcasts(ranks, rounds)
        ours_s, collector_s = (statistics.median(column) for column in zip(*changes, strict=True))
        bare_s = statistics.median(echoes(ranks, rounds))
        times = [taken_s for taken_s, _ in changes]
        shown = [welcomed_s, ours_s, min(times), max(times), collector_s]
        print(
            f"{ranks:>6,}{''.join(map(milliseconds, shown))}    {milliseconds(bare_s)}{ours_s / bare_s:>8.1f}",
            flush=True,
        )


def milliseconds(seconds: float) -> str:
    """A cell of the table."""
    return f"{seconds * 1000:>9.1f} ms"


if __name__ == "__main__":
    main()
