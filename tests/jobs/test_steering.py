"""Levels of running ranks: who gets them, who answers, and how they end."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.jobs.conftest import Collector, Lab, Process

pytestmark = pytest.mark.multiprocess

REPORTING = """
import threading
name = 'torch._dynamo.test'
def level(): return logging.getLevelName(logging.getLogger(name).getEffectiveLevel())
seen = level()
print('level', seen, flush=True)
told = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), told.set()), daemon=True).start()
while not told.wait(0.01):
    if (now := level()) != seen:
        seen = now
        print('level', seen, flush=True)
"""
"""Prints the effective level of a logger below dynamo each time that it changes, until told to end."""


def set_logs(lab: Lab, *arguments: str, status: int = 0) -> dict[str, Any]:
    """The answer of `tlogs set-logs --json`."""
    found: dict[str, Any] = json.loads(lab.tlogs("set-logs", *arguments, "--json", status=status))
    return found


def ranks(lab: Lab, count: int, collector: Collector, **environ: str) -> list[Process]:
    """So many ranks that report, all known to the collector."""
    workers = [lab.worker(REPORTING, rank, count, collector=collector, **environ) for rank in range(count)]
    lab.wait_for(lambda: len(json.loads(lab.tlogs("ranks", "--json"))) == count)
    return workers


def levels(worker: Process) -> list[str]:
    """The levels that it has reported so far."""
    return [line.removeprefix("level ") for line in worker.out.splitlines()]


def end(*workers: Process) -> None:
    for worker in workers:
        worker.tell()
        worker.ends()


def test_a_lease_reaches_those_who_are_there_and_those_who_come_later(lab: Lab) -> None:
    """Each answers; a late rank comes up at the leased level before it has logged much; a reset ends it everywhere."""
    collector = lab.collector("--quiet")
    workers = ranks(lab, 2, collector)
    answer = set_logs(lab, "dynamo=DEBUG")
    assert (answer["applied"], answer["ignored"], answer["failed"], answer["silent"]) == ("0-1", {}, {}, "")
    late = lab.worker(REPORTING, 2, 3, collector=collector)
    for worker in [*workers, late]:
        worker.says("level DEBUG")
    assert set_logs(lab, "dynamo=INFO", "--ranks", "1")["applied"] == "1"
    workers[1].says("level INFO")
    lab.tlogs("reset")
    for worker in [*workers, late]:
        lab.wait_for(lambda worker=worker: levels(worker)[-1] == "WARNING")  # type: ignore[misc]
    end(*workers, late)
    assert [levels(worker) for worker in workers] == [
        ["WARNING", "DEBUG", "WARNING"],
        ["WARNING", "DEBUG", "INFO", "WARNING"],
    ]
    [closing] = collector.stop()
    assert closing.lost == 0
    said = [record["message"] for record in lab.cat("--stream", "tlogs", "--ranks", "1")]
    assert [" ".join(text.split()[:3]) for text in said] == [
        "lease 1 began:",
        "lease 2 began:",
        "lease 1 ended:",
        "lease 2 ended:",
    ]


def test_a_lease_ends_by_itself_though_the_collector_is_dead(lab: Lab) -> None:
    """By the rank's own clock; what became of it stands in the stream, once there is a collector again."""
    collector = lab.collector("--quiet")
    [worker] = ranks(lab, 1, collector)
    set_logs(lab, "dynamo=DEBUG", "--for", "2s")
    worker.says("level DEBUG")
    collector.kill()
    lab.wait_for(lambda: levels(worker) == ["WARNING", "DEBUG", "WARNING"])
    again = lab.collector("--quiet", port=collector.port)
    end(worker)
    again.stop()
    assert [record["message"].split(":")[0] for record in lab.cat("--stream", "tlogs")] == [
        "lease 1 began",
        "lease 1 ended",
    ]


def test_a_restarted_collector_knows_its_leases(lab: Lab) -> None:
    """Killed with -9, started again: a rank that comes then gets what holds, and a reset ends it."""
    collector = lab.collector("--quiet")
    [worker] = ranks(lab, 1, collector)
    set_logs(lab, "dynamo=DEBUG")
    collector.kill()
    again = lab.collector("--quiet", port=collector.port)
    late = lab.worker(REPORTING, 1, 2, collector=again)
    late.says("level DEBUG")
    lab.wait_for(lambda: len(json.loads(lab.tlogs("ranks", "--json"))) == 2)
    assert levels(worker)[-1] == "DEBUG"
    lab.tlogs("reset")
    lab.wait_for(lambda: levels(worker)[-1] == levels(late)[-1] == "WARNING")
    end(worker, late)


def test_a_stopped_rank_is_silent_and_takes_it_over_when_it_goes_on(lab: Lab) -> None:
    """SIGSTOP: it gives no answer, the others do; after SIGCONT it converges by itself."""
    collector = lab.collector("--quiet")
    workers = ranks(lab, 2, collector)
    workers[1].signal(signal.SIGSTOP)
    answer = set_logs(lab, "dynamo=DEBUG", "--timeout", "500ms", status=1)
    assert (answer["applied"], answer["silent"]) == ("0", "1")
    workers[1].signal(signal.SIGCONT)
    workers[1].says("level DEBUG")
    end(*workers)


def test_a_rank_that_was_started_with_torch_logs_keeps_it_unless_forced(lab: Lab) -> None:
    """TORCH_LOGS has precedence over set_logs, and the answer names it; --force lays the lease over it."""
    collector = lab.collector("--quiet")
    own = lab.worker(REPORTING, 0, 2, collector=collector, TORCH_LOGS="inductor")
    other = lab.worker(REPORTING, 1, 2, collector=collector)
    lab.wait_for(lambda: len(json.loads(lab.tlogs("ranks", "--json"))) == 2)
    answer = set_logs(lab, "dynamo=DEBUG", status=1)
    assert answer["applied"] == "1"
    assert list(answer["ignored"]) == ["0"]
    assert "TORCH_LOGS=inductor" in answer["ignored"]["0"]
    other.says("level DEBUG")
    assert levels(own) == ["WARNING"]
    assert set_logs(lab, "dynamo=DEBUG", "--force", "--ranks", "0")["applied"] == "0"
    own.says("level DEBUG")
    found = json.loads(lab.tlogs("levels", "--json"))["ranks"]["0"]["components"]
    assert found["inductor"]["effective"] == "INFO", "its own settings are still there"
    end(own, other)
