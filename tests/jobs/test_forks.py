"""Processes that a rank starts: helpers of the rank, each with a stream of its own."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.jobs.conftest import Collector, Lab

pytestmark = pytest.mark.multiprocess


def run(lab: Lab, script: str, *arguments: str) -> list[dict[str, Any]]:
    """Run one rank to its end, and return what is stored; every stream must be complete and nothing be left.

    A *script* with arguments is a file's name.
    """
    collector: Collector = lab.collector("--quiet")
    if arguments:
        lab.start([sys.executable, script, *arguments], lab.rank(3, 4, collector)).ends()
    else:
        lab.worker(script, 3, 4, collector=collector).ends()
    [closing] = collector.stop()
    records = lab.cat()
    assert (closing.ranks, closing.records, closing.dropped, closing.lost) == (1, len(records), 0, 0)
    assert closing.wordless is None
    for pid in {record["pid"] for record in records}:
        numbers = [record["seq"] for record in records if record["pid"] == pid]
        assert numbers == list(range(len(numbers)))
    assert list(lab.outboxes.iterdir()) == []
    return records


def said(records: list[dict[str, Any]]) -> list[tuple[str | None, str]]:
    """Who said what."""
    assert {record["rank"] for record in records} == {3}
    return sorted((record.get("helper", ""), record["message"]) for record in records)


def test_a_child_of_os_fork_is_a_helper_named_by_its_number(lab: Lab) -> None:
    """Also one whose parent logs on, one that never logs, and the child of a child that never logged."""
    script = """
log.info('before')
if (pid := os.fork()) == 0:
    if os.fork() == 0:
        log.info('grandchild %d', os.getpid())
        sys.exit()
    os.wait()
    os._exit(0)
os.waitpid(pid, 0)
log.info('after')
if (pid := os.fork()) == 0:
    log.info('child %d', os.getpid())
    sys.exit()
os.waitpid(pid, 0)
"""
    records = run(lab, script)
    found = dict((message.partition(" ")[0], helper) for helper, message in said(records))
    assert set(found) == {"before", "grandchild", "after", "child"}
    assert found["before"] == found["after"] == ""
    for record in records:
        if record.get("helper"):
            who, pid = record["message"].split()
            assert record["pid"] == int(pid)
            assert record["helper"] == f"pid{pid}", who


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_of_multiprocessing_are_helpers_under_their_names(lab: Lab, method: str) -> None:
    """A forked one goes on by itself; a spawned one calls init() as its parent did."""
    script = """
import logging, multiprocessing, sys
import tlogs

def work(n):
    tlogs.init()
    logging.getLogger("job").warning("helper %d", n)

if __name__ == "__main__":
    tlogs.init()
    context = multiprocessing.get_context(sys.argv[1])
    logging.getLogger("job").warning("rank")
    helpers = [context.Process(target=work, args=(n,), name=f"Loader{n}") for n in range(2)]
    for helper in helpers: helper.start()
    for helper in helpers: helper.join()
"""
    (lab.root / "job_of_helpers.py").write_text(script)
    assert said(run(lab, "job_of_helpers.py", method)) == [
        ("", "rank"),
        ("Loader0", "helper 0"),
        ("Loader1", "helper 1"),
    ]


def test_a_fork_while_other_threads_log_neither_hangs_nor_doubles(lab: Lab) -> None:
    """The child inherits whatever lock a logging thread held at that moment, and goes on without it."""
    script = """
import threading
stop = threading.Event()
def chatter():
    while not stop.wait(0.0001): log.info('chatter')
threads = [threading.Thread(target=chatter) for _ in range(3)]
for thread in threads: thread.start()
for n in range(20):
    if (pid := os.fork()) == 0:
        log.info('child %d', n)
        tlogs.shutdown()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
stop.set()
for thread in threads: thread.join()
"""
    records = run(lab, script)
    assert sorted(r["message"] for r in records if r["message"] != "chatter") == sorted(f"child {n}" for n in range(20))


def test_a_child_with_hardly_any_descriptors_left_lives_on(lab: Lab) -> None:
    """With a stream where there are enough for one, without where there are not."""
    script = """
import resource
def starve(spare):
    top = max(int(name) for name in os.listdir('/dev/fd'))
    resource.setrlimit(resource.RLIMIT_NOFILE, (top + 30, top + 30))
    found = []
    try:
        while True: found.append(os.open(os.devnull, os.O_RDONLY))
    except OSError: pass
    for descriptor in found[:spare]: os.close(descriptor)
for spare in range(12):
    if (pid := os.fork()) == 0:
        starve(spare)
        log.info('child')
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0, spare
log.info('rank')
"""
    found = said(run(lab, script))
    assert found.count(("", "rank")) == 1
    children = [helper for helper, message in found if message == "child"]
    assert len(children) == len(set(children)) == len(found) - 1 < 12


def test_a_program_that_a_rank_starts_is_its_helper_where_it_uses_tlogs(lab: Lab) -> None:
    """The rank's variables are in its environment too; that makes it no second rank."""
    script = """
import subprocess
child = "import logging, tlogs; tlogs.init(); logging.getLogger('job').warning('child')"
log.info('rank')
subprocess.run([sys.executable, '-c', child], check=True)
"""
    [rank, child] = said(run(lab, script))
    assert rank == ("", "rank")
    assert child[0] is not None
    assert child[0].startswith("pid")


@pytest.mark.torch
def test_workers_of_a_data_loader_are_helpers_of_a_rank_in_a_process_group(lab: Lab) -> None:
    """What torch.distributed was initialised to in the parent makes no rank of a forked worker."""
    pytest.importorskip("torch")
    script = """
import time, torch
import torch.distributed as dist
dist.init_process_group('gloo', init_method=f'file://{os.getcwd()}/store', rank=0, world_size=1)
class Data(torch.utils.data.Dataset):
    def __len__(self): return 4
    def __getitem__(self, n):
        log.info('item %d', n)
        time.sleep(0.4)  # long enough for what is looked at every second
        return n
for batch in torch.utils.data.DataLoader(Data(), num_workers=2): pass
dist.destroy_process_group()
"""
    records = [record for record in run(lab, script) if record["logger"] == "job"]
    assert said(records) == [(f"DataLoader{n % 2}", f"item {n}") for n in (0, 2, 1, 3)]
