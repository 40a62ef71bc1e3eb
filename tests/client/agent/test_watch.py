"""Processes that are no children of the watcher: how each way of the kernel tells of their ends."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from tlogs.agent.ends import Status
from tlogs.agent.watch import ALL_WAYS, INFO, PIDFD, ZOMBIE, Watch, read_stat

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs pidfds")

SLEEPER = "import sys; print('up', flush=True); sys.stdin.read()"


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts Python code that has come up when the test gets it."""
    begun: list[subprocess.Popen[bytes]] = []

    def begin(code: str = SLEEPER) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        begun.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    yield begin
    for process in begun:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()


def await_end(watch: Watch) -> None:
    assert watch.fileno is not None
    assert select.select([watch.fileno], [], [], 30.0)[0]


ENDS = [
    pytest.param("os._exit(0)", Status(0, None), id="0"),
    pytest.param("os._exit(3)", Status(3, None), id="3"),
    pytest.param("os.kill(os.getpid(), signal.SIGKILL)", Status(None, signal.SIGKILL), id="kill"),
    pytest.param("os.kill(os.getpid(), signal.SIGTERM)", Status(None, signal.SIGTERM), id="term"),
]


@pytest.mark.parametrize(("code", "status"), ENDS)
@pytest.mark.parametrize("reaped", [False, True])
def test_the_status_is_known_before_and_after_the_parent_asks(
    start: Callable[..., subprocess.Popen[bytes]], code: str, status: Status, reaped: bool
) -> None:
    process = start(f"import os, signal, sys; print('up', flush=True); sys.stdin.read(); {code}")
    watch = Watch(process.pid, read_stat(process.pid).started)  # type: ignore[union-attr]
    assert not watch.has_ended()
    process.stdin.close()  # type: ignore[union-attr]
    await_end(watch)
    if reaped:
        process.wait()
    found = watch.status()
    if reaped and found is None:
        pytest.skip("this kernel tells of zombies only")
    assert found is not None
    assert (found.code, found.signal) == (status.code, status.signal)
    assert found.is_sure == (reaped or found.code != 0)
    watch.close()


@pytest.mark.parametrize("ways", [ALL_WAYS - {INFO}, ALL_WAYS - {ZOMBIE}, frozenset({PIDFD})])
def test_what_an_older_kernel_does_not_tell_is_not_known(
    start: Callable[..., subprocess.Popen[bytes]], ways: frozenset[str]
) -> None:
    process = start()
    watch = Watch(process.pid, 0, ways=ways)
    process.kill()
    await_end(watch)
    assert (watch.status() is not None) == (ZOMBIE in ways)
    process.wait()
    assert watch.status() is None or INFO in ways
    watch.close()


def test_without_pidfds_the_end_is_seen_when_asked(start: Callable[..., subprocess.Popen[bytes]]) -> None:
    process = start()
    watch = Watch(process.pid, 0, ways=frozenset({ZOMBIE}))
    assert watch.fileno is None
    assert not watch.has_ended()
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert watch.has_ended()
    assert watch.status() == Status(None, signal.SIGKILL)


def test_a_number_that_is_another_process_now_has_ended(start: Callable[..., subprocess.Popen[bytes]]) -> None:
    process = start()
    watch = Watch(process.pid, 1)
    assert watch.has_ended()
    assert watch.vital() is None
    watch.close()


def test_a_process_that_is_gone_has_ended(start: Callable[..., subprocess.Popen[bytes]]) -> None:
    process = start()
    process.kill()
    process.wait()
    assert Watch(process.pid, 0).has_ended()


def test_a_stopped_process_is_seen_to_be(start: Callable[..., subprocess.Popen[bytes]]) -> None:
    process = start()
    watch = Watch(process.pid, 0)
    vital = watch.vital()
    assert vital is not None
    assert vital.state == "running"
    os.kill(process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    vital = watch.vital()
    assert vital is not None
    assert vital.state == "stopped"
    watch.close()
