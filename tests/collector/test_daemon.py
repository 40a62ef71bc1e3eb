"""A whole collector: in this process from its first line to its last, and as a process that is attacked and stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from tests.collector.doors import NULL_HANDSHAKE, PING, SECRET, Peers, listening, parts, raw
from tests.limits import scaled

from tlogs_collector.daemon import Settings, run
from tlogs_collector.stop import Stop
from tlogs_shared.end import FINISHED, End
from tlogs_shared.origin import Origin
from tlogs_shared.protocol import messages as m
from tlogs_shared.protocol import wire
from tlogs_shared.storage.batch import Header, seal

DEADLINE_S = scaled(20.0)
STREAM = b"s" * 16
STOP_S = 2.0


def hear(peer: zmq.Socket[bytes], *kinds: type[m.Message]) -> Any:
    """The next message of one of these kinds to *peer*."""
    while peer.poll(int(DEADLINE_S * 1000)):
        if isinstance(message := wire.decode(peer.recv()), kinds):
            return message
    raise AssertionError(f"none of {kinds}")


def hello(stream: bytes, rank: int = 0) -> bytes:
    return wire.encode(m.Hello(stream, Origin(host="n1", pid=7 + rank, rank=rank), 0, 0))


def batch(stream: bytes, first: int, count: int) -> bytes:
    return wire.encode(m.Batch(*seal(Header(stream, first=first, count=count), bytes(count))))


def test_a_run_is_announced_stored_and_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlogs_collector.recoverer.outbox_places", lambda _: [])
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    runs = tmp_path / "runs"
    runs.mkdir()
    settings = Settings(
        directory=runs,
        run="mine",
        quiet=True,
        secret=SECRET,
        wait_for_sync=True,
        grace_s=60.0,
        max_bytes=1 << 30,
        keep_free=0.0,
        retain_s=None,
    )
    said: list[str] = []
    with listening(tmp_path) as listener, Peers() as peers:
        stop = Stop()
        endpoint = str(listener.endpoint)
        daemon = threading.Thread(target=run, args=(settings, listener, stop, said.append))
        rank = peers.local(listener.path)
        daemon.start()
        rank.send(hello(STREAM))
        welcome = hear(rank, m.Welcome)
        assert welcome.run == "mine"
        notice = json.loads((runs / "collector.json").read_text())
        assert (notice["endpoint"], notice["runs"]) == (endpoint, ["mine"])
        assert (notice["socket"], notice["instance"]) == (listener.path, welcome.instance)
        stop.request()
        rank.send(batch(STREAM, 0, 3))
        assert hear(rank, m.Ack).rows == [(STREAM, 3)]
        rank.send(wire.encode(m.Bye(STREAM, 3, {}, End(FINISHED, code=0))))
        daemon.join(DEADLINE_S)
        assert not daemon.is_alive(), "every rank has ended"
        assert listener.path == "", "the socket is taken away"
        stop.close()
    assert said[0] == f"listening on {endpoint}, storing in {runs}"
    assert "run mine: 1 rank, 3 records, 0 dropped, 0 lost" in said[-1]
    assert "ended_ns" in json.loads((runs / "mine" / "run.json").read_text())
    assert not (runs / "collector.json").exists()


class Process:
    """A collector that was started as people start it."""

    def __init__(self, root: Path) -> None:
        self.runs = root / "runs"
        command = [sys.executable, "-m", "tlogs_collector", "--quiet", "--run", "mine", "--dir", str(self.runs)]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TLOGS_")}
        environ = {**kept, "XDG_STATE_HOME": str(root / "state"), "XDG_RUNTIME_DIR": str(root), "TMPDIR": str(root)}
        self.popen = subprocess.Popen(
            [*command, "--listen", "tcp://127.0.0.1:0"], stderr=subprocess.PIPE, text=True, env=environ
        )
        assert self.popen.stderr is not None
        assert "listening on" in self.popen.stderr.readline()
        notice = json.loads((self.runs / "collector.json").read_text())
        self.socket, self.secret = notice["socket"], notice["secret"].encode()
        self.port = int(notice["endpoint"].rpartition(":")[2])

    def end(self) -> str:
        """End it; what it said, at last how the run ended."""
        self.popen.terminate()
        _, said = self.popen.communicate(timeout=DEADLINE_S)
        assert self.popen.returncode == 0, said
        return said


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Process]:
    """A collector of the test's own."""
    found = Process(tmp_path)
    yield found
    found.popen.kill()
    found.popen.communicate()


class Rank:
    """One stream, at one of the doors."""

    def __init__(self, number: int, peer: zmq.Socket[bytes]) -> None:
        self.stream, self.peer, self.head = bytes([number + 1]) * 16, peer, 0
        peer.send(hello(self.stream, number))
        hear(peer, m.Welcome)

    def log(self) -> bool:
        """Send a record; False where the socket does not take it."""
        try:
            self.peer.send(batch(self.stream, self.head, 1), zmq.NOBLOCK)
        except zmq.Again:
            return False
        self.head += 1
        return True

    def leave(self) -> None:
        """Say bye once everything is acknowledged."""
        stored = 0
        while stored < self.head:
            message = hear(self.peer, m.Ack, m.Rewind)
            if isinstance(message, m.Rewind):
                # It was beyond the window: what was not taken is sent again.
                for number in range(message.watermark, self.head):
                    self.peer.send(batch(self.stream, number, 1))
            else:
                stored = dict(message.rows)[self.stream]
        self.peer.send(wire.encode(m.Bye(self.stream, self.head, {}, End(FINISHED, code=0))))
        while dict(hear(self.peer, m.Ack).rows).get(self.stream) != self.head:
            pass


@pytest.mark.multiprocess
def test_strangers_do_not_end_it_and_the_others_notice_nothing(collector: Process) -> None:
    """What ends a process of libzmq: a ping behind messages, closed at once, and messages cut in the middle."""
    with Peers() as peers:
        ranks = [Rank(0, peers.local(collector.socket)), Rank(1, peers.tcp(collector.port, collector.secret))]
        silent = [raw(collector.port) for _ in range(200)]
        for written in (NULL_HANDSHAKE + parts(20, more=False) + PING, NULL_HANDSHAKE + parts(200, more=True)):
            for number in range(400):
                with raw(collector.port) as stranger:
                    stranger.sendall(written)
                if number % 20 == 0:
                    assert all(rank.log() for rank in ranks)
        for rank in ranks:
            rank.leave()
        for one in silent:
            one.close()
    assert "2 ranks, 80 records, 0 dropped, 0 lost" in collector.end()


@pytest.mark.multiprocess
def test_messages_of_many_parts_of_one_who_is_admitted_are_refused(collector: Process) -> None:
    """A secret that leaked ends nobody's daemon."""
    with Peers() as peers:
        rank = Rank(0, peers.local(collector.socket))
        for hostile in (peers.local(collector.socket), peers.tcp(collector.port, collector.secret)):
            for _ in range(200):
                hostile.send_multipart([hello(b"h" * 16)] * 5)
            assert hear(hostile, m.Refused).code == "protocol"
        assert rank.log()
        rank.leave()
    assert "1 rank, 1 record, 0 dropped, 0 lost" in collector.end()


@pytest.mark.multiprocess
def test_a_stop_under_load_ends_nothing_and_costs_nothing(collector: Process) -> None:
    """A suspended machine, a debugger: what the ranks said meanwhile waits in the sockets."""
    with Peers() as peers:
        doors = [lambda: peers.local(collector.socket), lambda: peers.tcp(collector.port, collector.secret)]
        ranks = [Rank(number, doors[number % 2]()) for number in range(4)]
        collector.popen.send_signal(signal.SIGSTOP)
        deadline = time.monotonic() + STOP_S
        while time.monotonic() < deadline:
            if not any([rank.log() for rank in ranks]):
                zmq.zmq_poll([(rank.peer, zmq.POLLOUT) for rank in ranks], 10)
        collector.popen.send_signal(signal.SIGCONT)
        for rank in ranks:
            rank.leave()
    logged = sum(rank.head for rank in ranks)
    assert f"4 ranks, {logged} records, 0 dropped, 0 lost" in collector.end()
