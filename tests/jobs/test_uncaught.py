"""Exceptions that nobody caught, in processes that the interpreter's hooks never see, and records that travel."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.jobs.conftest import Collector, Lab

pytestmark = pytest.mark.multiprocess

FAIL = """
import logging, sys
import tlogs

def fail(*args):
    tlogs.init()
    raise ValueError("boom")
"""


def run(lab: Lab, script: str, *arguments: str) -> tuple[str, list[dict[str, Any]]]:
    """Run a script as rank 0 with and without tlogs, which prints the same; what it printed, and what is stored."""
    (lab.root / "job.py").write_text(script)
    command = [sys.executable, "job.py", *arguments]
    without = lab.start(command, lab.rank() | {"TLOGS_DISABLE": "1"})
    without.ends()
    collector: Collector = lab.collector("--quiet")
    attached = lab.start(command, lab.rank(collector=collector))
    attached.ends()
    assert attached.out == without.out
    assert attached.err.replace(str(attached.pid), "") == without.err.replace(str(without.pid), "")
    [closing] = collector.stop()
    records = lab.cat()
    assert (closing.ranks, closing.records, closing.lost) == (1, len(records), 0)
    return attached.err, records


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_an_uncaught_exception_of_a_process_of_multiprocessing_is_a_record(lab: Lab, method: str) -> None:
    script = f"""{FAIL}
if __name__ == "__main__":
    import multiprocessing
    tlogs.init()
    process = multiprocessing.get_context(sys.argv[1]).Process(target=fail, name="Loader")
    process.start()
    process.join()
    print(process.exitcode)
"""
    err, records = run(lab, script, method)
    assert "ValueError: boom" in err
    assert [(record["helper"], record["message"]) for record in records] == [("Loader", "uncaught ValueError: boom")]
    assert records[0]["exc"].endswith("ValueError: boom")


@pytest.mark.parametrize("where", ["in the child", "at import"])
def test_init_at_import_and_in_a_fork_both_see_it(lab: Lab, where: str) -> None:
    """A spawned child that calls `init()` while its main module is imported; a fork that inherits all."""
    script = """
import logging, multiprocessing, sys
import tlogs
tlogs.init()

def fail():
    raise ValueError("boom")

if __name__ == "__main__":
    process = multiprocessing.get_context(sys.argv[1]).Process(target=fail, name="Loader")
    process.start()
    process.join()
"""
    _, records = run(lab, script, "fork" if where == "in the child" else "spawn")
    assert [(record["helper"], record["message"]) for record in records] == [("Loader", "uncaught ValueError: boom")]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_what_a_task_of_a_process_pool_raises_is_a_record_of_the_worker(lab: Lab, method: str) -> None:
    script = f"""{FAIL}
if __name__ == "__main__":
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    tlogs.init()
    with ProcessPoolExecutor(1, multiprocessing.get_context(sys.argv[1])) as pool:
        print(repr(pool.submit(fail).exception()))
"""
    _, records = run(lab, script, method)
    assert [record["message"] for record in records] == ["uncaught ValueError: boom"]
    assert records[0]["helper"]


@pytest.mark.torch
def test_an_uncaught_exception_of_a_process_that_torch_spawned_is_a_record(lab: Lab) -> None:
    pytest.importorskip("torch")
    script = f"""{FAIL}
if __name__ == "__main__":
    import torch.multiprocessing as mp
    tlogs.init()
    try: mp.spawn(fail, nprocs=1)
    except mp.ProcessRaisedException as error: print("raised")
"""
    _, records = run(lab, script)
    assert [record["message"] for record in records if record["logger"] == "tlogs.crash"] == [
        "uncaught ValueError: boom"
    ]


@pytest.mark.parametrize("stores", [True, False])
def test_a_record_that_comes_through_a_queue_is_stored_once(lab: Lab, stores: bool) -> None:
    """The listener of the logging cookbook; a worker without tlogs stores nothing itself."""
    script = """
import logging, logging.handlers, multiprocessing, sys
import tlogs

def work(queue, done, stores):
    if stores: tlogs.init()
    root = logging.getLogger()
    root.addHandler(logging.handlers.QueueHandler(queue))
    logging.getLogger("job").warning("from %s", "a worker")
    queue.put(None)
    done.wait()

if __name__ == "__main__":
    tlogs.init()
    logging.basicConfig(format="%(processName)s %(message)s")
    context = multiprocessing.get_context("spawn")
    queue, done = context.Queue(), context.Event()
    worker = context.Process(target=work, args=(queue, done, sys.argv[1] == "True"), name="Worker")
    worker.start()
    while (record := queue.get()) is not None:
        logging.getLogger(record.name).handle(record)
    logging.getLogger("job").warning("its own")
    done.set()
    worker.join()
"""
    err, records = run(lab, script, str(stores))
    assert err == "Worker from a worker\nMainProcess its own\n"
    assert sorted(record["message"] for record in records) == ["from a worker", "its own"]
