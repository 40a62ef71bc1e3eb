"""Whether the process that writes an outbox is alive: decided by the process, and only where it is unseen by a lock."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from tlogs.outbox import life
from tlogs.outbox.life import is_alive, this_process
from tlogs.outbox.ring import Process

HERE = this_process()


def unasked() -> bool:
    raise AssertionError("the lock is asked only where the process cannot be seen")


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="what a process is, is read from /proc")
@pytest.mark.parametrize(
    ("process", "alive"),
    [
        (HERE, True),
        (replace(HERE, started=HERE.started + 1), False),
        (replace(HERE, started=0), True),
        (replace(HERE, pid=0), False),
        (replace(HERE, pid=1 << 40), False),
        (replace(HERE, mount_namespace=1), True),
    ],
    ids=["this one", "its number was used again", "start not known", "none", "no such number", "other files"],
)  # fmt: skip
def test_a_process_that_can_be_seen_decides(process: Process, alive: bool) -> None:
    assert is_alive(process, unasked) is alive


@pytest.mark.parametrize("locked", [True, False])
@pytest.mark.parametrize(
    "process",
    [replace(HERE, pid_namespace=1), replace(HERE, boot=b"another kernel.."), replace(HERE, pid=0, pid_namespace=1)],
    ids=["another container", "another start of the kernel", "another container's"],
)
def test_where_the_process_cannot_be_seen_its_lock_decides(process: Process, locked: bool) -> None:
    assert is_alive(process, lambda: locked) is locked


@pytest.mark.multiprocess
def test_a_process_that_was_killed_and_not_waited_for_has_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        found = life._look(child.pid)
        assert found is not None
        process = replace(HERE, pid=child.pid, started=found[1])
        assert is_alive(process, unasked)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not is_alive(process, unasked)
    assert not is_alive(process, unasked)
