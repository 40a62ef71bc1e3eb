"""A stage for the agent: in this process, with a real hub behind a real socket, and workers that are processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import zmq
from tests.limits import scaled

from tlogs.agent.agent import Agent
from tlogs.agent.watch import ALL_WAYS
from tlogs_collector.hub import actions as do
from tlogs_collector.hub.hub import Hub
from tlogs_shared.errors import MessageError
from tlogs_shared.origin import StreamInfo
from tlogs_shared.protocol import wire
from tlogs_shared.protocol.clock import Moment
from tlogs_shared.protocol.messages import Ask, Batch
from tlogs_shared.storage.batch import Header, records
from tlogs_shared.storage.record import Fields, message_of

DEADLINE_S = 30.0

WORKER = """
import os, socket, sys
from tlogs.access import agent_messages as m
from tlogs.outbox.outbox import Outbox
path, stream, agent, collector = sys.argv[1], bytes.fromhex(sys.argv[2]), sys.argv[3], sys.argv[4]
origin = {"host": "n1", "pid": os.getpid(), "rank": int(sys.argv[5]), "key": "job", "outbox": path}
outbox = Outbox(path, stream=stream, meta={"endpoint": collector, "origin": origin}, capacity=1 << 20)
def log(text, level=20, logger="job", thread="MainThread"):
    outbox.append(level, logger, text, None, None, "w.py", 1, "f", thread, None)
def register(secret=None, fd=None):
    global line
    line = socket.socket(socket.AF_UNIX)
    line.connect(agent)
    message = m.Register("0", stream, origin, collector, secret, None, secret is None, None)
    socket.send_fds(line, [m.encode(message)], [outbox.fd if fd is None else fd])
def say(message): line.sendall(m.encode(message))
def hear(kind):
    global decoder, waiting
    while True:
        while waiting:
            message = waiting.pop(0)
            if isinstance(message, kind): return message
        data = line.recv(65536)
        assert data, "the agent has gone"
        waiting += decoder.feed(data)
decoder, waiting = m.Decoder(), []
print("up", flush=True)
for command in sys.stdin:
    exec(command)
    print("done", flush=True)
"""


class Worker:
    """A process with an outbox that does what it is told: a line of Python at a time."""

    def __init__(self, scene: Scene, rank: int, collector: str) -> None:
        self.stream = bytes([rank + 1]) * 16
        self.path = scene.root / f"n1-{os.getpid()}-{rank:08x}.outbox"
        command = [sys.executable, "-c", WORKER, str(self.path), self.stream.hex(), scene.socket, collector, str(rank)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._scene = scene
        assert self.process.stdout is not None
        self._out = self.process.stdout
        assert self._out.readline() == "up\n"

    @property
    def pid(self) -> int:
        return self.process.pid

    def does(self, code: str) -> None:
        """Have it run *code*, and wait for that while the agent goes on."""
        self.begins(code)
        self._scene.until(lambda: zmq.zmq_poll([(self._out.fileno(), zmq.POLLIN)], 0))
        assert self._out.readline() == "done\n", code

    def begins(self, code: str) -> None:
        """Have it run *code*."""
        assert self.process.stdin is not None
        self.process.stdin.write(code + "\n")
        self.process.stdin.flush()

    def ends(self, code: str) -> None:
        """Have it run what ends it, and wait until it has been reaped."""
        self.begins(code)
        self.process.wait(scaled(DEADLINE_S))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def clear(self) -> None:
        self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    pass


@dataclass
class Stored:
    """A stream as the collector has it."""

    info: StreamInfo
    records: list[Fields] = field(default_factory=list)
    headers: list[Header] = field(default_factory=list)
    end: Any = None

    @property
    def texts(self) -> list[str]:
        return [message_of(record) for record in self.records]


@dataclass
class _Kept:
    info: StreamInfo
    watermark: int
    records: int


class Collector:
    """A hub with a socket and a store in memory; `pump` lets it work."""

    def __init__(self, port: int = 0) -> None:
        self.streams: dict[bytes, Stored] = {}
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self._context.socket(zmq.ROUTER)
        self.socket.linger = 0
        self.port = port or self.socket.bind_to_random_port("tcp://127.0.0.1")
        if port:
            self.socket.bind(f"tcp://127.0.0.1:{port}")
        self.endpoint = f"tcp://127.0.0.1:{self.port}"
        self.hub = Hub(lambda: "run", lambda _: None)
        self.heard: list[Any] = []

    def pump(self) -> None:
        """Handle what has arrived; what was taken counts as safe."""
        while True:
            try:
                connection, frame = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            try:
                message = wire.decode(frame)
            except MessageError as error:
                self._do(self.hub.broken(connection, "protocol", str(error)))
                continue
            if not isinstance(message, Batch):
                self.heard.append(message)
            self._do(self.hub.handle(connection, message, _now()))
        self._do(self.hub.tick(_now()))

    def say(self, message: Any) -> None:
        """Have the hub handle an operator's message."""
        for said in (Ask(0, "hello"), message):
            self._do(self.hub.handle(b"operator", said, _now()))

    def _do(self, actions: Any) -> None:
        stored = {}
        for action in actions:
            match action:
                case do.Send(b"operator", _):
                    pass
                case do.Send(connection, message):
                    self.socket.send_multipart([connection, wire.encode(message)], zmq.NOBLOCK)
                case do.OpenRun(name, _):
                    kept: Mapping[bytes, Any] = {
                        stream: _Kept(one.info, len(one.records), len(one.records))
                        for stream, one in self.streams.items()
                    }
                    self._do(self.hub.opened(name, kept, [], _now()))
                case do.Append(run, header, payload):
                    one = self.streams[header.stream]
                    one.records += records(header, payload)
                    one.headers.append(header)
                    stored[run, header.stream] = header.end
                case do.PutStream(_, stream, info):
                    self.streams.setdefault(stream, Stored(info)).info = info
                case _:
                    pass
        if stored:
            self._do(self.hub.stored(stored))

    def close(self) -> None:
        self.socket.close()
        self._context.term()


def _now() -> Moment:
    return Moment(time.monotonic(), time.time_ns())


class Scene:
    """An agent, a collector and workers, in directories of the test's own."""

    def __init__(self, root: Path) -> None:
        self.root = root / "outboxes"
        self.root.mkdir(mode=0o700, exist_ok=True)
        self.socket = str(root / "agent")
        self.collector: Collector | None = None
        self.endpoint = ""
        self.agents: list[Agent] = []
        self._workers: list[Worker] = []
        self._listener: socket.socket | None = None

    def agent(self, ways: frozenset[str] = ALL_WAYS) -> Agent:
        """An agent in this process; one before it is forgotten as if it had been killed."""
        if self._listener is None:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(self.socket)
            self._listener.listen(64)
            self._listener.setblocking(False)
        self.agents.append(Agent(dict(os.environ), self._listener, ways=ways))
        return self.agents[-1]

    def collects(self, port: int = 0) -> Collector:
        """A collector in this process."""
        self.collector = Collector(port)
        self.endpoint = self.collector.endpoint
        return self.collector

    def worker(self, rank: int = 0) -> Worker:
        """A worker that is about to register."""
        worker = Worker(self, rank, self.endpoint or "tcp://127.0.0.1:9")
        self._workers.append(worker)
        return worker

    def until(self, found: Callable[[], Any]) -> Any:
        """Let agent and collector work until *found* returns something that holds, and return that."""
        deadline = time.monotonic() + scaled(DEADLINE_S)
        while not (value := found()):
            assert time.monotonic() < deadline, "waited in vain"
            if self.agents:
                self.agents[-1].turn(0.01)
            if self.collector is not None:
                self.collector.pump()
        return value

    def stored(self, worker: Worker) -> list[str]:
        """The texts of what the collector has of a worker's stream."""
        assert self.collector is not None
        one = self.collector.streams.get(worker.stream)
        return [] if one is None else one.texts

    def clear(self) -> None:
        for worker in self._workers:
            worker.clear()
        for agent in self.agents:
            agent.close()
        if self._listener is not None:
            self._listener.close()
        if self.collector is not None:
            self.collector.close()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """A stage of the test's own."""
    scene = Scene(tmp_path)
    yield scene
    scene.clear()
