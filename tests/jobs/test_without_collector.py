"""Nobody answers, or nobody is wanted: the script runs as if tlogs were not there."""

from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.jobs.conftest import Lab

pytestmark = pytest.mark.multiprocess


@pytest.fixture
def closed_port() -> Iterator[str]:
    """An endpoint where nothing listens, and nothing will while the test runs."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def test_a_script_without_its_collector_runs_and_ends_unharmed(lab: Lab, closed_port: str) -> None:
    """Its records stay in the outbox, and it waits for nobody, an hour being allowed for those that are moving."""
    script = "for n in range(100): log.info('step %d', n)\nprint('done')\nsession.close(3600, at_exit=True)\n"
    worker = lab.worker(script, collector=closed_port)
    assert worker.ends() == ""
    assert worker.out == "done\n"
    assert len(list(lab.outboxes.iterdir())) == 1


def test_recover_brings_in_what_waits_for_a_collector(lab: Lab) -> None:
    """Started where the worker looked for it; the second time there is nothing left to do."""
    first = lab.collector("--quiet")
    first.kill()
    lab.worker("for n in range(100): log.info('step %d', n)\n", rank=5, world_size=8, collector=first).ends()
    for agent in lab.agents():
        os.kill(agent, signal.SIGKILL)
    lab.wait_for(lambda: not lab.agents())
    second = lab.collector("--quiet", port=first.port, name="others", TLOGS_OUTBOX_DIR=str(lab.root / "not here"))
    said = lab.tlogs("recover")
    assert said.startswith("rank5: 10")
    assert " records delivered from " in said
    assert lab.tlogs("recover") == "no outbox of a dead worker here\n"
    [closing] = second.stop()
    assert (closing.records, closing.ranks, closing.wordless) == (100, 1, None)
    assert [record["message"] for record in lab.cat(name="others")] == [f"step {n}" for n in range(100)]


def test_a_collector_that_is_started_later_gets_what_was_logged_before(lab: Lab) -> None:
    """The agent outlives the worker, and looks for the collector again and again."""
    first = lab.collector("--quiet")
    first.kill()
    lab.worker("for n in range(100): log.info('step %d', n)\n", collector=first).ends()
    second = lab.collector("--quiet", port=first.port)
    lab.wait_for(lambda: lab.stored(second) == 100, "all records, though the worker has ended")


def test_a_script_says_once_a_host_why_nobody_answers(lab: Lab, closed_port: str) -> None:
    """After ten seconds; the first rank of its host, with the cause; nobody is stopped."""
    script = "print('waits')\nsys.stdin.readline()\n"
    other = lab.worker(script, 1, 2, collector=closed_port)
    other.says("waits")
    first = lab.worker(script, 0, 2, collector=closed_port)
    expected = f"tlogs: no collector at tcp://{closed_port}: nothing listens there; records are kept in the outbox\n"
    lab.wait_for(lambda: first.err == expected, expected)
    for worker, said in ((other, ""), (first, expected)):
        worker.tell()
        assert worker.ends() == said


def test_disabled_it_does_nothing_at_all(lab: Lab) -> None:
    """No file, no thread, no socket, no change of the environment."""
    collector = lab.collector("--quiet")
    script = """
import threading
log.warning('hello')
assert threading.active_count() == 1
assert 'TLOGS_PARENT' not in os.environ
assert session.collector is None
sockets = [fd for fd in os.listdir('/proc/self/fd') if os.path.exists(f'/proc/self/fd/{fd}')
           and os.readlink(f'/proc/self/fd/{fd}').startswith('socket')]
assert sockets == [], sockets
"""
    worker = lab.worker(script, collector=collector, TLOGS_DISABLE="1")
    assert worker.ends() == "hello\n"
    assert collector.stop() == []
    assert not lab.outboxes.exists()


def test_an_unknown_variable_is_named_with_what_was_meant(lab: Lab) -> None:
    """TLOGS_COLECTOR would otherwise be a silent nothing."""
    said = lab.worker("", TLOGS_COLECTOR="127.0.0.1:1").ends()
    assert said == "tlogs: unknown variable TLOGS_COLECTOR (did you mean TLOGS_COLLECTOR?)\n"
