"""The control thread, with an agent on the other end of a socket pair that says what the test wants."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tlogs.access import agent_messages as m
from tlogs.worker.control import Control, Hooks
from tlogs_shared.protocol.lease import Lease

STREAM = b"s" * 16
LEASE = Lease(revision=1, settings={"c10d": 10}, ttl_s=600.0, created_ns=1)


@dataclass
class Agent:
    """The agent's end of each connection that a control makes. `refuses`: there is no agent."""

    refuses: bool = False
    connections: list[socket.socket] = field(default_factory=list)
    laid: list[tuple[Sequence[Lease], Sequence[Lease], Sequence[Lease]]] = field(default_factory=list)
    said: list[m.Registered] = field(default_factory=list)
    polled: bool = False
    decoder: m.Decoder = field(default_factory=m.Decoder)
    waiting: list[m.Message] = field(default_factory=list)

    def connect(self) -> int | None:
        if self.refuses:
            return None
        ours, theirs = socket.socketpair()
        ours.settimeout(20)
        theirs.setblocking(False)
        self.connections.append(ours)
        self.decoder = m.Decoder()
        return theirs.detach()

    def register(self) -> tuple[m.Register, int]:
        return m.Register("0", STREAM, {"rank": 0}, "n0:1", None, None, False, None), 2

    def lay(
        self, leases: Sequence[Lease], began: Sequence[Lease], ended: Sequence[Lease]
    ) -> tuple[Mapping[int, Sequence[str]], bytes]:
        self.laid.append((leases, began, ended))
        return {lease.revision: ("applied", "") for lease in leases}, b"report"

    def hooks(self) -> Hooks:
        return Hooks(
            self.connect, self.register, self.lay, self.said.append, lambda: self.polled, lambda lease: True, loud=True
        )

    def hear(self, kind: type[Any]) -> Any:
        """The next message of this kind; others are passed over."""
        while True:
            while self.waiting:
                message = self.waiting.pop(0)
                if isinstance(message, kind):
                    return message
            data = self.connections[-1].recv(65536)
            assert data, "the worker has gone"
            self.waiting += self.decoder.feed(data)

    def say(self, message: m.Message) -> None:
        self.connections[-1].sendall(m.encode(message))


@pytest.fixture
def agent() -> Iterator[Agent]:
    found = Agent()
    yield found
    for connection in found.connections:
        connection.close()


@pytest.fixture
def control(agent: Agent) -> Iterator[Control]:
    found = Control(agent.hooks())
    yield found
    found.stop()
    found.close()


def wait_for(condition: Callable[[], object], timeout: float = 20.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        os.sched_yield()


def test_it_registers_and_answers_a_ping(agent: Agent, control: Control) -> None:
    """The outbox's descriptor comes with the registration."""
    assert control.open()
    control.start()
    message, fds, _, _ = socket.recv_fds(agent.connections[-1], 65536, 1)
    assert [*m.Decoder().feed(message)] == [agent.register()[0]]
    assert os.path.sameopenfile(fds[0], 2)
    os.close(fds[0])
    agent.say(m.Ping(7))
    assert agent.hear(m.Pong) == m.Pong(7)


def test_leases_are_applied_answered_and_end_by_the_clock_of_the_worker(agent: Agent, control: Control) -> None:
    """Also with an agent that never says anything again."""
    control.open()
    control.start()
    agent.say(m.Settings(3, [Lease(revision=3, settings={"c10d": 10}, ttl_s=0.2, created_ns=1).as_map()]))
    assert agent.hear(m.Applied) == m.Applied(3, {3: ["applied", ""]}, b"report")
    assert agent.hear(m.Applied) == m.Applied(3, {}, b"report")
    (first, began, _), (left, _, ended) = agent.laid
    assert [lease.revision for lease in first] == [lease.revision for lease in began] == [3]
    assert (left, [lease.revision for lease in ended]) == ([], [3])


def test_a_lease_ends_in_time_where_the_agent_has_died(agent: Agent, control: Control) -> None:
    control.open()
    control.start()
    agent.say(m.Settings(1, [Lease(revision=1, settings={"c10d": 10}, ttl_s=0.3, created_ns=1).as_map()]))
    agent.hear(m.Applied)
    agent.refuses = True
    agent.connections[-1].close()
    wait_for(lambda: len(agent.laid) == 2)
    assert agent.laid[-1][0] == []
    assert control.state == "none"


def test_another_agent_is_registered_with_at_once(agent: Agent, control: Control) -> None:
    """The one before was killed; the next one is told everything again."""
    control.open()
    control.start()
    agent.hear(m.Register)
    agent.connections[-1].close()
    wait_for(lambda: len(agent.connections) == 2)
    assert agent.hear(m.Register) == agent.register()[0]


def test_the_state_is_what_the_agent_says(agent: Agent, control: Control) -> None:
    assert control.state == "none"
    control.open()
    assert control.state == "greeting"
    control.start()
    said = m.Registered("run", 1, "tcp://n0:1", "connected")
    agent.say(said)
    wait_for(lambda: agent.said)
    assert (agent.said, control.state) == ([said], "connected")


def test_no_call_waits_for_an_agent_that_does_not_read(agent: Agent, control: Control) -> None:
    """A message that the socket does not take is not said: the next registration says all there is to know."""
    control.open()
    message = m.Applied(1, {}, b"r" * 60_000)
    assert [control.send(message) for _ in range(20)].count(False) > 5
    assert control.state == "greeting", "it is still there"


def test_nothing_of_threading_knows_the_thread(agent: Agent, control: Control) -> None:
    """A program may join all threads, or wait until it is alone; a logging call would leave a dummy behind."""
    before = threading.enumerate()
    control.open()
    control.start()
    agent.say(m.Settings(1, [LEASE.as_map()]))
    agent.hear(m.Applied)
    agent.say(m.Complain("x", ""))
    agent.say(m.Ping(1))
    agent.hear(m.Pong)
    assert threading.enumerate() == before
    assert threading.active_count() == len(before)


@pytest.mark.skipif(
    not Path("/proc/self/task").exists(), reason="this system does not show the signal masks of threads"
)
def test_signals_never_reach_the_thread_but_those_of_a_fault(agent: Agent, control: Control) -> None:
    """A program that blocks a signal and looks whether it is pending would be killed by it on a thread of ours."""
    others = set(os.listdir("/proc/self/task"))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    control.open()
    control.start()
    agent.say(m.Ping(1))
    agent.hear(m.Pong)
    (ours,) = set(os.listdir("/proc/self/task")) - others
    status = Path(f"/proc/self/task/{ours}/status").read_text()
    blocked = int(next(line for line in status.splitlines() if line.startswith("SigBlk")).split()[1], 16)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        is_blocked = bool(blocked >> (number - 1) & 1)
        assert is_blocked is (number not in (4, 6, 7, 8, 11)), signal.Signals(number)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask


def test_it_ends_and_begins_again_as_often_as_is_wanted(agent: Agent, control: Control) -> None:
    """Python 3.12 warns at a fork while there is any other thread; the connection stays."""
    control.open()
    threads = len(os.listdir("/proc/self/task")) if sys.platform == "linux" else 0
    for number in range(5):
        control.start()
        agent.say(m.Ping(number))
        assert agent.hear(m.Pong) == m.Pong(number)
        assert control.stop()
        assert sys.platform != "linux" or len(os.listdir("/proc/self/task")) == threads
    assert len(agent.connections) == 1


def test_a_descriptor_that_the_program_closed_and_uses_is_left_alone(
    agent: Agent, control: Control, tmp_path: Path
) -> None:
    """A daemon closes everything, and the next file that is opened gets our number."""
    control.open()
    agent.hear(m.Register)
    number = control._descriptor.number if control._descriptor is not None else -1
    agent.refuses = True
    path = tmp_path / "theirs"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    os.dup2(fd, number)
    try:
        assert not control.send(m.Pong(1))
        control.start()
        control.stop()
        control.close()
        os.fstat(number)
        assert path.read_bytes() == b""
    finally:
        os.close(fd)
        os.close(number)


def test_a_broadcast_is_answered_or_given_up(agent: Agent, control: Control, capfd: pytest.CaptureFixture[str]) -> None:
    control.open()
    control.start()
    found: list[m.Report | None] = []
    asker = threading.Thread(target=lambda: found.append(control.ask(LEASE, "x:1", 10.0)))
    asker.start()
    change = agent.hear(m.Change)
    assert (change.lease, change.once, change.timeout_s) == (LEASE.as_map(), "x:1", 10.0)
    agent.say(m.Report(change.number, "", {"applied": "0-3"}))
    asker.join()
    assert found == [m.Report(change.number, "", {"applied": "0-3"})]
    assert control.ask(LEASE, "x:2", 0.0) is None, "nobody waits for the answer"
    change = agent.hear(m.Change)
    assert change.once == "x:2"
    agent.say(m.Report(change.number, "unknown name 'x'", None))
    agent.say(m.Ping(1))
    agent.hear(m.Pong)
    assert capfd.readouterr().err == "tlogs: broadcast: unknown name 'x'\n", "nobody else would hear of it"


def test_what_cannot_be_read_ends_the_connection(
    agent: Agent, control: Control, capfd: pytest.CaptureFixture[str]
) -> None:
    control.open()
    control.start()
    agent.hear(m.Register)
    agent.refuses = True
    agent.connections[-1].sendall(b"\xff" * 8)
    wait_for(lambda: control.state == "none")
    control.stop()
    assert "what cannot be read" in capfd.readouterr().err


def test_a_complaint_is_said_once(agent: Agent, control: Control, capfd: pytest.CaptureFixture[str]) -> None:
    control.open()
    control.start()
    for _ in range(3):
        agent.say(m.Complain("access", "the collector has another secret"))
    agent.say(m.Ping(1))
    agent.hear(m.Pong)
    assert capfd.readouterr().err == "tlogs: the collector has another secret\n"


def test_levels_are_compared_every_second_only_where_a_seam_is_missing(agent: Agent, control: Control) -> None:
    """Else the thread makes no system call until somebody speaks."""
    looks = 0

    def look() -> bool:
        nonlocal looks
        looks += 1
        return looks < 2

    polled = Control(replace(agent.hooks(), check=look))
    polled.open()
    polled.start()
    wait_for(lambda: looks == 2)
    polled.stop()
    polled.close()
