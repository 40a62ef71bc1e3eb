"""`tlogs recover` and `tlogs drain`: what workers left, and what they still have, reaches a store."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.jobs.conftest import Lab

pytestmark = pytest.mark.multiprocess

NOBODY = "tcp://127.0.0.1:9"
LEAVES = "for n in range(50): log.info('step %d', n)\nos.kill(os.getpid(), 9)\n"


def leave(lab: Lab, run: str = "left") -> str:
    """A worker that nobody heard, and that was killed, with its agent: the path of its outbox."""
    lab.worker(LEAVES, collector=NOBODY, TLOGS_RUN=run).ends(-signal.SIGKILL)
    for pid in lab.wait_for(lab.agents):
        os.kill(pid, signal.SIGKILL)
    lab.wait_for(lambda: not lab.agents())
    [outbox] = lab.outboxes.glob("*.outbox")
    return str(outbox)


def steps(lab: Lab, name: str, run: str = "left") -> int:
    return sum(record["logger"] == "job" for record in lab.cat("--run", run, name=name))


def test_without_any_collector_into_a_directory(lab: Lab) -> None:
    leave(lab)
    assert "50 records delivered" in lab.tlogs("recover", "--dir", str(lab.root / "stored"))
    assert steps(lab, "stored") == 50
    assert list(lab.outboxes.glob("*.outbox*")) == []
    assert lab.tlogs("recover", "--dir", str(lab.root / "stored")) == "no outbox of a dead worker here\n"


def test_to_another_collector_than_the_outbox_names(lab: Lab) -> None:
    outbox = leave(lab)
    collector = lab.collector("--quiet")
    assert "stays" in lab.start_tlogs("recover").ends(1)
    assert f"delivered from {outbox}" in lab.tlogs("recover", "--to", collector.endpoint, outbox)
    assert steps(lab, "runs") == 50


def test_a_file_that_was_named_is_never_passed_over_in_silence(lab: Lab) -> None:
    collector = lab.collector("--quiet")
    worker = lab.worker("print('up', flush=True)\ninput()\n", collector=collector)
    worker.says("up")
    [alive] = lab.outboxes.glob("*.outbox")
    assert "its process is alive" in lab.start_tlogs("recover", str(alive)).ends(1)
    other = lab.root / "other.txt"
    other.write_text("no outbox")
    assert f"{other}: expected an outbox" in lab.start_tlogs("recover", str(other)).ends(1)
    assert "no such file" in lab.tlogs("recover", str(lab.root / "none"), status=2)
    assert "contradict" in lab.tlogs("recover", "--to", NOBODY, "--dir", ".", status=2)


def test_drained_is_what_all_agents_have_sent(lab: Lab) -> None:
    collector = lab.collector("--quiet")
    worker = lab.worker(
        "for n in range(500): log.info('step %d', n)\nprint('up', flush=True)\ninput()\n", collector=collector
    )
    worker.says("up")
    lab.tlogs("drain", "--timeout", "20s")
    assert lab.stored(collector) >= 500
    collector.kill()
    worker.tell()
    worker.ends()
    assert "did not send all" in lab.start_tlogs("drain", "--timeout", "500ms").ends(1)


def test_where_no_agent_lives_drain_brings_in_what_dead_workers_left(lab: Lab) -> None:
    collector = lab.collector("--quiet", TLOGS_OUTBOX_DIR=str(lab.root / "elsewhere"))
    port = collector.port
    collector.kill()
    lab.worker(LEAVES, collector=collector, TLOGS_RUN="left").ends(-signal.SIGKILL)
    for pid in lab.wait_for(lab.agents):
        os.kill(pid, signal.SIGKILL)
    assert lab.start_tlogs("drain", "--timeout", "1s").ends(1)
    lab.collector("--quiet", port=port, TLOGS_OUTBOX_DIR=str(lab.root / "elsewhere"))
    assert lab.tlogs("drain", "--timeout", "20s") == ""
    assert steps(lab, "runs") == 50
