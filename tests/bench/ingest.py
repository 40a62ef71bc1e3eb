"""Records taken each second: run me with `python tests/bench/ingest.py [--quick]`.

Four producer processes send the same records to one receiving process, over loopback, in interleaved rounds:

- to `tlogs-collector`, through the shipped forwarder, link and socket. The clock stops when all is written, synced and
  acknowledged. The batches are sealed before the clock starts, so that the producers do not take the collector's
  processor: what is measured is the collector. Once in full batches, as ranks in a storm of records send them; once in
  batches of 100 records, as a rank sends them that logs 5,000 records/s: what a batch costs shows there.
- to the socket receiver of Python's logging cookbook, which writes a line a record to a file. Its records are pickled
  before the clock starts. It acknowledges and syncs nothing; the clock stops when it has handled the last record.
"""

from __future__ import annotations

import argparse
import logging
import logging.handlers
import multiprocessing
import os
import pickle
import socket
import socketserver
import statistics
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import msgpack
import zstandard
from tlogs.worker.forwarder import COMPRESSION_LEVEL, Forwarder, Hooks
from tlogs.worker.link import Lay, Link, State

from daemon import Daemon
from machine import cpu_s
from mix import START_NS, steps
from tlogs.access.discovery import Address
from tlogs.outbox.ring import Extent
from tlogs_shared.host import boot_id
from tlogs_shared.origin import Origin
from tlogs_shared.protocol.messages import Batch
from tlogs_shared.storage.batch import TARGET_RAW_BYTES, Header, seal
from tlogs_shared.storage.record import Fields, message_of

PRODUCERS = 4
SMALL_BATCH = 100
FULL_BATCH = 10**9
"""Bounded by its bytes alone."""

TIMEOUT_S = 120.0


class Sealed:
    """An outbox whose batches are sealed already; it is empty until `fill`."""

    def __init__(self, batches: Sequence[tuple[Header, bytes]], stream: bytes) -> None:
        self._batches = [Batch(replace(header, stream=stream), payload) for header, payload in batches]
        self._next = 0
        self.head = self.acknowledged = self.low_ts = 0
        self.oldest_unsent_ts: int | None = None
        self.dropped: Mapping[int, int] = {}

    def fill(self) -> None:
        """Have everything logged at once."""
        self.head = self._batches[-1].header.end

    @property
    def unsent_bytes(self) -> int:
        return 0 if self._next == len(self._batches) else TARGET_RAW_BYTES

    def take(self) -> Batch | None:
        """The next batch that was not handed out."""
        if self.head == 0 or self._next == len(self._batches):
            return None
        self._next += 1
        return self._batches[self._next - 1]

    def cut(self, close_open: bool) -> Extent | None:
        raise AssertionError("what is sealed is not cut")

    def rewind(self, watermark: int) -> None:
        self._next = sum(1 for batch in self._batches if batch.header.end <= watermark)

    def acknowledge(self, watermark: int) -> None:
        self.acknowledged = watermark


class Sender(Forwarder):
    """The shipped forwarder without the sealing, which was done before."""

    def __init__(self, link: Link, sealed: Sealed, address: Address) -> None:
        super().__init__(link, sealed, address.endpoint, address.secret, Hooks(_lay, lambda: None))
        self._sealed = sealed

    def _next_batch(self, *, close_open: bool) -> Batch | None:
        return self._sealed.take()


def _lay(action: Lay) -> tuple[Mapping[int, Sequence[str]], Mapping[str, object]]:
    return {}, {}


def seal_all(records: Sequence[Fields], most: int) -> list[tuple[Header, bytes]]:
    """Batches of at most *most* records."""
    pack, compressor = msgpack.Packer().pack, zstandard.ZstdCompressor(level=COMPRESSION_LEVEL)
    batches: list[tuple[Header, bytes]] = []
    raw: list[bytes] = []
    first = size = 0
    for number, record in enumerate(records):
        ts = START_NS + number * 1000
        raw.append(pack((ts, *record[1:])))
        size += len(raw[-1])
        if size >= TARGET_RAW_BYTES or len(raw) == most or number == len(records) - 1:
            start = START_NS + first * 1000
            header = Header(bytes(16), level=20, first=first, count=len(raw), first_ts=start, last_ts=ts, low_ts=ts)
            batches.append(seal(header, b"".join(raw), compressor))
            raw, first, size = [], number + 1, 0
    return batches


def pickle_all(records: Sequence[Fields]) -> bytes:
    """What a SocketHandler would send."""
    handler = logging.handlers.SocketHandler("", 0)
    texts = (logging.LogRecord(r.logger, r.levelno, r.path, r.line, message_of(r), (), None, r.func) for r in records)
    return b"".join(handler.makePickle(record) for record in texts)


def produce(orders: Connection, number: int, records: int, peer_records: int) -> None:
    """A producer's process: make the records, then send them as often as told."""
    made = list(steps(number, records))
    batches = {most: seal_all(made, most) for most in (FULL_BATCH, SMALL_BATCH)}
    pickled = pickle_all(made[:peer_records])
    del made
    orders.send("made")
    while (order := orders.recv()) is not None:
        if isinstance(order, int):
            done = send_pickled(pickled, order, orders)
        else:
            address, run, most = order
            done = send_sealed(batches[most], number, address, run, orders)
        orders.send(done)


def send_sealed(
    batches: Sequence[tuple[Header, bytes]], number: int, address: Address, run: str, orders: Connection
) -> float:
    """To the collector; the time when everything was acknowledged."""
    stream = os.urandom(16)
    sealed = Sealed(batches, stream)
    origin = Origin("localhost", os.getpid(), boot_id(), rank=number, local_rank=number, world_size=PRODUCERS, run=run)
    link = Link(stream, origin, sealed, secret=address.secret, nonce=os.urandom)
    sender = Sender(link, sealed, address)
    sender.start()
    deadline = time.monotonic() + TIMEOUT_S
    while link.state is not State.LIVE and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    orders.send("ready")
    orders.recv()
    sealed.fill()
    if not sender.flush(TIMEOUT_S):
        raise RuntimeError("not everything was acknowledged")
    done = time.monotonic()
    sender.close()
    return done


def send_pickled(pickled: bytes, port: int, orders: Connection) -> float:
    """To the socket receiver; the time when it had handled everything."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        orders.send("ready")
        orders.recv()
        connection.sendall(pickled)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)  # it closes its side when it has handled what it read
        return time.monotonic()


class Receiver(socketserver.StreamRequestHandler):
    """The handler of Python's logging cookbook, reading through a buffer: its own gives up where a length is split."""

    def handle(self) -> None:
        while head := self.rfile.read(4):
            record = logging.makeLogRecord(pickle.loads(self.rfile.read(*struct.unpack(">L", head))))
            logging.getLogger(record.name).handle(record)


def receive(ready: Connection, path: Path) -> None:
    """The socket receiver's process."""
    form = "%(asctime)s %(process)d %(name)-15s %(levelname)-8s %(filename)s:%(lineno)d %(message)s"
    logging.basicConfig(filename=path, format=form, level=1)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Receiver) as server:
        ready.send(server.server_address[1])
        server.serve_forever()


@dataclass(frozen=True, slots=True)
class Figure:
    """What one round gave."""

    records_per_s: float
    cpu_s_per_million: float


def round_of(orders: Sequence[Connection], order: object, receiver: int, records: int) -> Figure:
    """Have all producers send at once."""
    for producer in orders:
        producer.send(order)
    for producer in orders:
        producer.recv()
    used, began = cpu_s(receiver), time.monotonic()
    for producer in orders:
        producer.send("go")
    took = max(producer.recv() for producer in orders) - began
    return Figure(records / took, (cpu_s(receiver) - used) / records * 1e6)


def measure(records: int, peer_records: int, rounds: int) -> dict[str, list[Figure]]:
    """Rounds of all ways, *records* of each producer in each, *peer_records* to the socket receiver."""
    context = multiprocessing.get_context("spawn")
    processes: list[BaseProcess] = []
    full, small, theirs = [], [], []
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="tlogs-bench-"))
        daemon = stack.enter_context(Daemon())

        def start(target: Callable[..., None], *args: object) -> Connection:
            here, there = context.Pipe()
            process = context.Process(target=target, args=(there, *args), daemon=True)
            process.start()
            stack.callback(process.terminate)
            processes.append(process)
            return here

        port = start(receive, Path(directory) / "received.log").recv()
        receiver = processes[0].pid
        assert receiver is not None
        orders = [start(produce, number, records, peer_records) for number in range(PRODUCERS)]
        for producer in orders:
            producer.recv()
        address, sent = daemon.address, records * PRODUCERS
        for number in range(rounds):
            full.append(round_of(orders, (address, f"full-{number}", FULL_BATCH), daemon.pid, sent))
            small.append(round_of(orders, (address, f"small-{number}", SMALL_BATCH), daemon.pid, sent))
            theirs.append(round_of(orders, port, receiver, peer_records * PRODUCERS))
        for producer in orders:
            producer.send(None)
        for process in processes[1:]:
            process.join(TIMEOUT_S)
        if (stored := daemon.end()) != 2 * rounds * sent:
            raise RuntimeError(f"{stored} records are stored, {2 * rounds * sent} were sent")
    return {
        "tlogs-collector, until synced": full,
        f"tlogs-collector, batches of {SMALL_BATCH}": small,
        "Python's socket receiver": theirs,
    }


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one small round: whether it runs")
    quick = parser.parse_args().quick
    rounds = 1 if quick else 5
    measured = measure(*((5_000, 500) if quick else (500_000, 15_000)), rounds)
    print(f"ingest: {PRODUCERS} producers, records of 180 bytes, medians of {rounds} rounds")
    print(f"{'':<42}{'records/s':>12}{'ratio':>8}{'CPU-s per million':>20}{'ratio':>8}")
    rates = {name: statistics.median(one.records_per_s for one in found) for name, found in measured.items()}
    times = {name: statistics.median(one.cpu_s_per_million for one in found) for name, found in measured.items()}
    peer = list(measured)[-1]
    for name in measured:
        rate = f"{rates[name]:>12,.0f}{rates[name] / rates[peer]:>8.1f}"
        print(f"{name:<42}{rate}{times[name]:>20.3f}{times[name] / times[peer]:>8.4f}")
    print(f"{'goal':<42}{1_400_000:>12,}{'':>8}{0.6:>20.3f}")


if __name__ == "__main__":
    main()
