"""A tail that somebody opened before the job, or keeps open while it dies."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.jobs.conftest import Lab

pytestmark = pytest.mark.multiprocess

TORCHRUN = {"TORCHELASTIC_RESTART_COUNT": "0", "TORCHELASTIC_MAX_RESTARTS": "0"}
WAITING = "print('ready', flush=True)\nsys.stdin.readline()\nlog.info('last words of rank %s', os.environ['RANK'])\n"


def test_a_tail_stays_until_the_last_words_of_the_killed_are_there_and_says_how_it_ended(lab: Lab) -> None:
    collector = lab.collector("--quiet")
    tail = lab.start_tlogs("tail", TLOGS_COLLECTOR=collector.endpoint)
    lab.wait_for(lambda: "waiting for the next run" in tail.err)
    killed = lab.worker(WAITING + "os.kill(os.getpid(), 9)\n", 1, 2, collector=collector, **TORCHRUN)
    other = lab.worker(WAITING, 0, 2, collector=collector, **TORCHRUN)
    for rank in (0, 1):
        tail.says(f"rank {rank} attempt 0 began on")
    for worker, status in ((killed, -signal.SIGKILL), (other, 0)):
        worker.tell()
        worker.ends(status)
    tail.ends()
    for rank in (0, 1):
        assert f"last words of rank {rank}" in tail.out
    *_, line = tail.err.splitlines()
    assert ": FAILED after " in line
    assert ": rank 1 SIGKILL, " in line
    [closing] = collector.stop()
    assert (closing.ranks, closing.lost) == (2, 0)
    told = [line for line in collector.err.splitlines() if ": FAILED after " in line]
    assert len(told) == 1
    assert told[0].endswith(f" · 2 ranks, {len(lab.cat_all())} records, 0 dropped, 0 lost")


def test_a_tail_whose_collector_ends_under_its_ranks_says_so(lab: Lab) -> None:
    collector = lab.collector("--quiet")
    worker = lab.worker(WAITING, collector=collector)
    tail = lab.start_tlogs("tail", TLOGS_COLLECTOR=collector.endpoint)
    tail.says("began on")
    for _ in range(2):
        collector.signal(signal.SIGINT)
    err = tail.ends(3)
    assert "1 rank was still running, and it keeps its records until a collector is back" in err
    collector.closes()
    worker.tell()
    worker.ends()
