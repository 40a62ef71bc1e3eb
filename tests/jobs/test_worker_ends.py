"""However a worker ends: every record whose logging call had returned is stored in the end."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.jobs.conftest import Lab

pytestmark = pytest.mark.multiprocess

COUNT = 50
STEPS = f"for n in range({COUNT}): log.info('step %d', n)\n"

ENDS: dict[str, tuple[str, int]] = {
    "SIGKILL": ("os.kill(os.getpid(), 9)\n", -signal.SIGKILL),
    "SIGTERM": ("os.kill(os.getpid(), 15)\n", -signal.SIGTERM),
    "a segmentation fault": ("import ctypes\nctypes.string_at(0)\n", -signal.SIGSEGV),
    "os._exit": ("os._exit(3)\n", 3),
    "an exception": ("raise ValueError('loss is nan')\n", 1),
    "sys.exit in a thread": ("import threading\nt = threading.Thread(target=sys.exit)\nt.start()\nt.join()\n", 0),
    "sys.exit": ("sys.exit(4)\n", 4),
    "a normal exit": ("", 0),
}


def steps(records: list[dict[str, Any]]) -> list[str]:
    """The messages of the loop, in the order of *records*."""
    return [record["message"] for record in records if record["logger"] == "job"]


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("when", ["at once", "after a flush"])
def test_all_that_was_logged_before_the_end_is_stored(lab: Lab, how: str, when: str) -> None:
    """By the worker itself where it could, else from its outbox; and no outbox is left lying about."""
    script, status = ENDS[how]
    flushed = "assert tlogs.flush(20)\nlog.info('flushed')\n" if when == "after a flush" else ""
    collector = lab.collector("--quiet")
    worker = lab.worker(STEPS + flushed + script, collector=collector)
    worker.ends(status)
    [closing] = collector.stop()
    records = lab.cat()
    assert steps(records) == [f"step {n}" for n in range(COUNT)] + (["flushed"] if flushed else [])
    assert [record["seq"] for record in records] == list(range(len(records)))
    assert (closing.records, closing.dropped, closing.lost) == (len(records), 0, 0)
    assert list(lab.outboxes.iterdir()) == []
    if how == "an exception":
        assert records[-1]["level"] == "CRITICAL"
        assert records[-1]["exc"].endswith("ValueError: loss is nan")
        assert "ValueError: loss is nan" in worker.err, "the script's own traceback is printed as ever"
    if how == "a segmentation fault":
        assert "Segmentation fault" in records[-1]["message"]
        assert "string_at" in records[-1]["exc"]


def test_a_hundred_workers_killed_after_their_last_call_lose_nothing(lab: Lab) -> None:
    """100 of 100: each is killed in the instant after its last logging call, some before they ever connected."""
    collector = lab.collector("--quiet", "--run", "job")
    script = """
import time
for number in range(25):
    pid = os.fork()
    if pid == 0:
        for n in range(number): log.info('step')
        if number % 2: tlogs.flush(1)
        log.info('last words of %d', number)
        os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
"""
    workers = [lab.worker(script, rank, 4, collector=collector) for rank in range(4)]
    for worker in workers:
        worker.ends()
    [closing] = collector.stop()
    records = lab.cat()
    last = [(record["rank"], record["message"]) for record in records if record["message"].startswith("last")]
    assert sorted(last) == sorted((rank, f"last words of {number}") for rank in range(4) for number in range(25))
    assert (closing.records, closing.lost) == (len(records), 0)
    assert len(records) == 4 * sum(range(1, 26))


def test_what_exit_handlers_log_after_ours_is_stored_too(lab: Lab) -> None:
    """Handlers that were registered before init(), as torch registers its own when it is imported, run after ours."""
    collector = lab.collector("--quiet")
    early = "import atexit, logging\natexit.register(lambda: logging.getLogger('late').warning('at the very end'))\n"
    script = f"{early}import tlogs\ntlogs.init()\nlogging.getLogger('job').warning('on time')\n"
    lab.start([sys.executable, "-c", script], lab.rank(collector=collector)).ends()
    lab.wait_for(lambda: lab.stored(collector) == 2, "both records")
    [closing] = collector.stop()
    assert (closing.records, closing.dropped, closing.lost, closing.wordless) == (2, 0, 0, None)
    assert [(record["message"], record.get("recovered", False)) for record in lab.cat()] == [
        ("on time", False),
        ("at the very end", True),
    ]
    assert list(lab.outboxes.iterdir()) == []
