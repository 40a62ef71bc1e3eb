"""The collector is killed, stopped, restarted: nothing is lost, nothing is stored twice, nobody waits for ever."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.jobs.conftest import Lab, Process

pytestmark = pytest.mark.multiprocess

ByRank = Callable[[list[dict[str, Any]]], dict[int, list[int]]]

LOGGING = """
import threading
told = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), told.set()), daemon=True).start()
n = 0
print('ready', flush=True)
while not told.wait(0.001):
    for _ in range(20):
        log.info('step %d', n)
        n += 1
print('logged', n, flush=True)
"""
"""Logs some 20,000 records a second until it is told to end, and says how many those were."""


STILL_RUNNING = "1 rank was still running; it keeps its records until a collector is back"


def logged(worker: Process) -> int:
    """End a worker that runs LOGGING, and return how many records it says it has logged."""
    worker.tell()
    worker.ends()
    return int(worker.out.split()[-1])


@pytest.mark.parametrize("seed", range(2))
def test_a_collector_killed_again_and_again_has_each_record_once(lab: Lab, by_rank: ByRank, seed: int) -> None:
    """Killed at random moments under ranks that log at full speed, started again on the same port and directory."""
    moments = random.Random(seed)
    collector = lab.collector("--quiet")
    workers = [lab.worker(LOGGING, rank, 2, collector=collector) for rank in range(2)]
    for worker in workers:
        worker.says("ready")
    for _ in range(4):
        lab.wait_for_more(collector, moments.randrange(1, 5000))
        collector.kill()
        collector = lab.collector("--quiet", port=collector.port)
    counts = {rank: logged(worker) for rank, worker in enumerate(workers)}
    [closing] = collector.stop()
    records = [record for record in lab.cat() if record["stream"] == "log"]
    assert {rank: len(numbers) for rank, numbers in by_rank(records).items()} == counts
    assert all(numbers == list(range(len(numbers))) for numbers in by_rank(records).values())
    assert (closing.records, closing.dropped, closing.lost, closing.wordless) == (sum(counts.values()), 0, 0, None)


def test_a_collector_that_comes_back_elsewhere_is_found_by_nobody_but_loses_nothing(lab: Lab) -> None:
    """Workers end without it; the next collector of the same directory brings in what they left."""
    collector = lab.collector("--quiet")
    worker = lab.worker(LOGGING, collector=collector)
    worker.says("ready")
    lab.wait_for_more(collector)
    collector.kill()
    count = logged(worker)
    second = lab.collector("--quiet")
    [closing] = second.stop()
    assert (closing.records, closing.lost) == (count, 0)
    assert [record["message"] for record in lab.cat()] == [f"step {n}" for n in range(count)]


def test_a_stopped_collector_stays_for_its_ranks(lab: Lab) -> None:
    """The first SIGTERM waits for those who are there, also for what they have still to say."""
    collector = lab.collector("--quiet")
    worker = lab.worker(LOGGING, collector=collector)
    worker.says("ready")
    lab.wait_for_more(collector)
    collector.signal(signal.SIGTERM)
    lab.wait_for_more(collector)
    count = logged(worker)
    [closing] = collector.closes()
    assert (closing.records, closing.lost, closing.wordless) == (count, 0, None)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_a_collector_at_once(lab: Lab, number: int) -> None:
    """It does not wait for the rank, which is named, and whose records it goes on keeping."""
    collector = lab.collector("--quiet", "--grace", "1h")
    worker = lab.worker(LOGGING, 3, 4, collector=collector)
    worker.says("ready")
    lab.wait_for_more(collector)
    collector.signal(number)
    lab.wait_for(lambda: "press Ctrl-C again to stop now" in collector.err)
    collector.signal(number)
    [closing] = collector.closes()
    assert closing.wordless is None, "it has not ended"
    assert STILL_RUNNING in collector.err
    again = lab.collector("--quiet", port=collector.port)
    count = logged(worker)
    [closing] = again.stop()
    assert (closing.records, closing.lost, closing.wordless) == (count, 0, None)


def test_the_grace_bounds_the_wait_for_ranks(lab: Lab) -> None:
    """A rank that logs on for ever keeps the collector for --grace and no longer."""
    collector = lab.collector("--quiet", "--grace", "300ms")
    worker = lab.worker(LOGGING, collector=collector)
    worker.says("ready")
    lab.wait_for_more(collector)
    [closing] = collector.stop()
    assert STILL_RUNNING in collector.err
    assert closing.records == len(lab.cat())
