"""Which process is which rank, and of which run, where no launcher says it to all of them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

import tlogs

if TYPE_CHECKING:
    from tests.jobs.conftest import Lab

pytestmark = pytest.mark.multiprocess

BEGIN = """
import logging, multiprocessing, os, subprocess, sys, time
import tlogs
tlogs.init()
log = logging.getLogger("job")
log.setLevel(logging.INFO)
"""


def run(
    lab: Lab, script: str, *arguments: str, runs: int = 1, command: list[str] | None = None
) -> list[dict[str, Any]]:
    """Run a script without a launcher to its end; the stored records of its loggers, all runs' together."""
    (lab.root / "job.py").write_text(BEGIN + script)
    collector = lab.collector("--quiet")
    lab.start(command or [sys.executable, "job.py", *arguments], lab.rank(None, collector=collector)).ends()
    closings = collector.stop()
    assert len(closings) == runs
    records = [record for closing in closings for record in lab.cat(closing.name)]
    return [record for record in records if record["logger"] == "job"]


def who(records: list[dict[str, Any]]) -> list[tuple[int | None, str, str]]:
    """Rank, helper and message of each record."""
    return sorted((record["rank"], record.get("helper", ""), record["message"]) for record in records)


def test_what_the_first_rank_starts_as_lightning_does_is_of_its_run(lab: Lab) -> None:
    """Its environment names no rank and no master when it calls init(); that of what it starts does."""
    script = """
log.info("here")
if "LOCAL_RANK" not in os.environ:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29511", NODE_RANK="0", LOCAL_RANK="0", WORLD_SIZE="3")
    others = [subprocess.Popen([sys.executable, *sys.argv], env={**os.environ, "LOCAL_RANK": str(n)}) for n in (1, 2)]
    assert [other.wait() for other in others] == [0, 0]
"""
    assert who(run(lab, script)) == [(0, "", "here"), (1, "", "here"), (2, "", "here")]


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_processes_that_import_the_main_module_are_helpers_in_its_run(lab: Lab, method: str) -> None:
    script = """
def work():
    log.info("helper")

if __name__ == "__main__":
    log.info("rank")
    helper = multiprocessing.get_context(sys.argv[1]).Process(target=work, name="Loader")
    helper.start()
    helper.join()
    assert helper.exitcode == 0
"""
    assert who(run(lab, script, method)) == [(0, "", "rank"), (0, "Loader", "helper")]


def test_workers_of_a_process_pool_are_helpers_in_its_run(lab: Lab) -> None:
    script = """
def work(n):
    log.info("task %d", n)

if __name__ == "__main__":
    from concurrent.futures import ProcessPoolExecutor
    log.info("rank")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(work, range(2)))
"""
    found = who(run(lab, script))
    assert [(rank, message) for rank, _, message in found] == [(0, "rank"), (0, "task 0"), (0, "task 1")]
    assert [bool(helper) for _, helper, _ in found] == [False, True, True]


def test_two_programs_of_one_shell_are_two_runs(lab: Lab) -> None:
    script = 'log.info("alone")\nassert os.read(0, 1)'
    (lab.root / "job.py").write_text(BEGIN + script)
    collector = lab.collector("--quiet")
    shell = 'exec 3<&0; "$0" job.py <&3 & "$0" job.py <&3 & wait'
    both = lab.start(["sh", "-c", shell, sys.executable], lab.rank(None, collector=collector))
    lab.wait_for(lambda: lab.stored(collector) == 2, "both are there at once")
    both.tell("go")
    both.tell("go")
    both.ends()
    assert [(closing.ranks, closing.records) for closing in collector.stop()] == [(1, 1), (1, 1)]
    assert len(tlogs.runs(collector.directory)) == 2


@pytest.mark.torch
def test_processes_that_torch_spawned_are_ranks_and_their_parent_is_none(lab: Lab) -> None:
    pytest.importorskip("torch")
    script = """
def work(rank):
    import torch.distributed as dist
    log.info("before")
    dist.init_process_group("gloo", init_method="file://" + os.path.abspath("store"), rank=rank, world_size=2)
    log.info("in the group")
    dist.destroy_process_group()

if __name__ == "__main__":
    import torch.multiprocessing as mp
    log.info("parent")
    mp.spawn(work, nprocs=2)
    log.info("after")
"""
    records = run(lab, script)
    assert who([record for record in records if record["rank"] is not None]) == [
        (rank, "", text) for rank in (0, 1) for text in ("before", "in the group")
    ]
    assert [record["message"] for record in records if record["rank"] is None] == ["parent", "after"]


@pytest.mark.torch
def test_a_group_that_lives_for_a_moment_names_the_rank(lab: Lab) -> None:
    pytest.importorskip("torch")
    script = """
import torch.distributed as dist
other = None
if len(sys.argv) < 2:
    other = subprocess.Popen([sys.executable, "job.py", "1"])
rank = 0 if other else 1
dist.init_process_group("gloo", init_method="file://" + os.path.abspath("store"), rank=rank, world_size=2)
dist.destroy_process_group()
log.info("done")
assert other is None or other.wait() == 0
"""
    assert who(run(lab, script)) == [(0, "", "done"), (1, "", "done")]
