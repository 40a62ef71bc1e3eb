"""The agent as a process: started by whoever needs it, once a host, and gone when nobody does."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.limits import scaled

from tlogs.access.agent_messages import Decoder, Drain, Drained, encode
from tlogs.access.agent_place import LOCK_SUFFIX, Place, find_place, reach
from tlogs.access.agent_start import connect, listen

pytestmark = [pytest.mark.multiprocess, pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs /proc")]

DEADLINE_S = 30.0
COLLECTOR = "tcp://127.0.0.1:9"

STARTER = """
import os, sys
from tlogs.access.agent_start import connect
sys.stdin.readline()
fd = connect(sys.argv[1], os.environ, start=True)
print("none" if fd is None else "connected", flush=True)
sys.stdin.readline()
"""

REGISTERED = """
import os, socket, sys
from tlogs.access import agent_messages as m
from tlogs.access.agent_start import connect
from tlogs.outbox.outbox import Outbox
path = os.path.join(sys.argv[2], "n1-1-00000001.outbox")
origin = {"host": "n1", "pid": os.getpid(), "rank": 0, "key": "job", "outbox": path}
outbox = Outbox(path, stream=b"s" * 16, meta={"endpoint": sys.argv[1], "origin": origin}, capacity=1 << 20)
line = socket.socket(fileno=connect(sys.argv[1], os.environ, start=True))
line.setblocking(True)
message = m.Register("0", b"s" * 16, origin, sys.argv[1], None, None, True, None)
socket.send_fds(line, [m.encode(message)], [outbox.fd])
line.recv(4096)
print("connected", flush=True)
sys.stdin.readline()
"""


def wait_for(found: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + scaled(DEADLINE_S)
    while not (value := found()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return value


class Host:
    """An environment of its own, as a host with one user is."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(root),
            "XDG_RUNTIME_DIR": str(root),
            "TLOGS_OUTBOX_DIR": str(root / "outboxes"),
            "RANK": "3",
            "PYTHONPATH": os.pathsep.join(sys.path),
            "LD_PRELOAD": "",
        }
        (root / "outboxes").mkdir(mode=0o700)
        place = find_place(COLLECTOR, self.environ)
        assert place is not None
        self.place = place
        self._begun: list[subprocess.Popen[str]] = []

    def starts(self, code: str = STARTER, **environ: str) -> subprocess.Popen[str]:
        """A process that looks for the agent once it is told to."""
        command = [sys.executable, "-c", code, COLLECTOR, self.environ["TLOGS_OUTBOX_DIR"]]
        given = {**self.environ, **environ}
        process = subprocess.Popen(command, env=given, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._begun.append(process)
        return process

    def agents(self) -> list[int]:
        """The agents of this host that live."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().split(b"\0")
                if self.place.directory.encode() in words and b"-I" in words and words[0] != b"sh":
                    found.append(int(path.parent.name))
            except OSError:
                pass
        return found

    def agent(self) -> int:
        wait_for(self.agents)
        [pid] = self.agents()
        return pid

    def clear(self) -> None:
        for process in self._begun:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
        for pid in self.agents():
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path)
    yield host
    host.clear()


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def drained(host: Host) -> bool:
    """Ask the agent something that it answers at once."""
    with socket.socket(socket.AF_UNIX) as line, reach(host.place) as path:
        line.connect(path)
        line.sendall(encode(Drain()))
        line.settimeout(scaled(DEADLINE_S))
        return any(isinstance(message, Drained) for message in Decoder().feed(line.recv(100)))


def test_of_many_that_start_at_once_one_starts_the_agent(host: Host) -> None:
    processes = [host.starts() for _ in range(32)]
    for process in processes:
        tell(process)
    assert [answer(process) for process in processes] == ["connected"] * 32
    assert drained(host)
    assert len(host.agents()) == 1


def test_the_agent_is_nobodys_child_and_has_nothing_of_its_starter(host: Host) -> None:
    process = host.starts(TLOGS_SECRET="x" * 20)
    tell(process)
    assert answer(process) == "connected"
    assert drained(host)
    pid = host.agent()
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    assert int(words[1]) != process.pid
    assert os.getsid(pid) == pid != os.getsid(process.pid)
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert Path(f"/proc/{pid}/comm").read_text() == "tlogs-agent\n"
    environ = dict(item.partition(b"=")[::2] for item in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
    assert not environ.keys() & {b"RANK", b"PYTHONPATH", b"LD_PRELOAD", b"TLOGS_SECRET"}
    assert environ.keys() >= {b"PATH", b"HOME", b"TLOGS_OUTBOX_DIR"}
    assert os.sched_getaffinity(pid) >= os.sched_getaffinity(0)
    for name in ("0", "1", "2"):
        assert os.readlink(f"/proc/{pid}/fd/{name}") == "/dev/null"


def test_a_binding_of_the_starter_is_not_the_agents(host: Host) -> None:
    allowed = os.sched_getaffinity(0)
    code = f"import os; os.sched_setaffinity(0, {{{min(allowed)}}})\n{STARTER}"
    process = host.starts(code)
    tell(process)
    assert answer(process) == "connected"
    assert drained(host)
    assert os.sched_getaffinity(host.agent()) >= allowed


def test_a_descriptor_that_is_inherited_is_not_kept(host: Host, tmp_path: Path) -> None:
    """`exec 9>lock; flock 9; python train.py`: the lock must not live on with the agent."""
    code = f"import os; os.dup2(os.open({str(tmp_path / 'lock')!r}, os.O_CREAT | os.O_RDWR), 40, True)\n{STARTER}"
    process = host.starts(code)
    tell(process)
    assert answer(process) == "connected"
    assert drained(host)
    pid = host.agent()
    assert str(tmp_path / "lock") not in {os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()}


def test_a_socket_that_nobody_listens_on_is_replaced(host: Host) -> None:
    listen(host.place).close()
    process = host.starts()
    tell(process)
    assert answer(process) == "connected"


def test_an_agent_that_dies_is_not_started_again_and_again(host: Host) -> None:
    for expected in ("connected", "none"):
        process = host.starts()
        tell(process)
        assert answer(process) == expected
        if expected == "connected":
            assert drained(host)
            os.kill(host.agent(), signal.SIGKILL)
            wait_for(lambda: not host.agents())
    lock = Path(host.place.path + LOCK_SUFFIX)
    lock.write_text(" ".join(f"{time.time() - 60 * number:.3f}" for number in range(1, 6)))
    process = host.starts()
    tell(process)
    assert answer(process) == "none"


def test_it_leaves_when_there_is_nothing_to_do_and_may_be_started_anew(host: Host) -> None:
    process = host.starts()
    tell(process)
    assert answer(process) == "connected"
    os.kill(host.agent(), signal.SIGTERM)  # while it starts, a signal for the job is none for it
    assert drained(host)
    os.kill(host.agent(), signal.SIGTERM)
    tell(process)
    process.wait()
    wait_for(lambda: not host.agents())
    assert not os.path.exists(host.place.path)
    again = host.starts()
    tell(again)
    assert answer(again) == "connected"


def test_signals_for_the_job_do_not_end_it_while_a_worker_lives(host: Host) -> None:
    worker = host.starts(REGISTERED)
    assert answer(worker) == "connected"
    pid = host.agent()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(pid, number)
    assert drained(host)
    worker.kill()
    worker.wait()
    wait_for(lambda: not host.agents())  # it drains, for a collector that is not there, and leaves
    assert list((host.root / "outboxes").glob("*.outbox"))


def test_a_person_runs_one_in_the_foreground(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "mine" / "agent"
    environ = {**host.environ, "TLOGS_AGENT": str(path)}
    command = [sys.executable, "-m", "tlogs", "agent", "--listen", str(path)]
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) as agent:
        assert agent.stderr is not None
        assert agent.stderr.readline() == f"tlogs-agent: listening on {path}\n"
        second = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        assert (second.returncode, second.stderr) == (2, f"tlogs: {path}: another agent listens there\n")
        worker = host.starts(REGISTERED, TLOGS_AGENT=str(path))
        assert answer(worker) == "connected"
        assert not host.agents()
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(scaled(DEADLINE_S)) == 0
    assert not path.exists()


def test_the_agent_of_somebody_else_is_never_started(host: Host, tmp_path: Path) -> None:
    environ: Mapping[str, str] = {**host.environ, "TLOGS_AGENT": str(tmp_path / "none" / "agent")}
    assert connect(COLLECTOR, environ, start=True) is None
    assert not host.agents()
    assert find_place(COLLECTOR, environ) == Place(str(tmp_path / "none"), "agent")
