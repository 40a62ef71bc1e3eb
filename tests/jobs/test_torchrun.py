"""Real torchrun jobs: what torch says on request, from every rank, and ranks that are started again."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.jobs.conftest import Collector, Lab, Process

pytestmark = [pytest.mark.multiprocess, pytest.mark.torch]

ByRank = Callable[[list[dict[str, Any]]], dict[int, list[int]]]
C10D = "torch.distributed.distributed_c10d"

GROUPS = """
import logging, os, sys, time
os.environ["TORCH_DIST_INIT_BARRIER"] = "1"
import tlogs
tlogs.init()
import torch
import torch.distributed as dist
torch._logging.set_logs(guards=True)
dist.init_process_group("gloo")
log = logging.getLogger("job")
log.setLevel(logging.INFO)
stop = torch.zeros(1)
while not stop.item():
    dist.destroy_process_group(dist.new_group())
    log.info("round")
    stop.fill_(float(os.path.exists("stop")))
    dist.broadcast(stop, src=0)
assert torch._logging.getArtifactLogger("job", "guards").getEffectiveLevel() == logging.DEBUG
dist.destroy_process_group()
"""
"""Makes a process group again and again until there is a file named stop."""

RESTARTED = """
import logging, os, time
import tlogs
tlogs.init()
log = logging.getLogger("job")
attempt = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
log.warning("attempt %d", attempt)
while attempt == 0:
    if os.environ["RANK"] == "1" and os.path.exists("die"): os.kill(os.getpid(), 9)
    time.sleep(0.02)
while logging.getLogger("torch._dynamo").getEffectiveLevel() != logging.DEBUG: time.sleep(0.02)
log.warning("at the leased level")
"""


def torchrun(lab: Lab, script: str, ranks: int, collector: Collector, *options: str) -> Process:
    (lab.root / "job.py").write_text(script)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    environ = {"TLOGS_COLLECTOR": collector.endpoint, "OMP_NUM_THREADS": "1"}
    process: Process = lab.start([*command, *options, "job.py"], environ)
    return process


def test_a_running_job_says_what_it_was_asked_for_from_all_ranks(lab: Lab, by_rank: ByRank) -> None:
    """c10d's records below WARNING come after set-logs and not before; what the script asked for itself stays."""
    pytest.importorskip("torch")
    collector = lab.collector("--quiet")
    job = torchrun(lab, GROUPS, 4, collector)
    lab.wait_for(lambda: len(by_rank(lab.cat("--logger", "job"))) == 4 if lab.stored(collector) else 0)
    assert lab.cat("--logger", C10D) == []
    before = {record["rank"]: record["seq"] for record in lab.cat("--attempt", "last")}
    answer = json.loads(lab.tlogs("set-logs", "c10d=DEBUG", "--json"))
    assert (answer["applied"], answer["silent"]) == ("0-3", "")
    lab.wait_for(lambda: len(by_rank(lab.cat("--logger", C10D))) == 4)
    (lab.root / "stop").touch()
    job.ends()
    [closing] = collector.stop()
    records = lab.cat()
    assert (closing.ranks, closing.records, closing.lost, closing.wordless) == (4, len(records), 0, None)
    said = [record for record in records if record["logger"] == C10D]
    assert {record["rank"] for record in said} == {0, 1, 2, 3}
    assert {record["level"] for record in said} <= {"DEBUG", "INFO"}
    assert all(record["seq"] > before[record["rank"]] for record in said)
    assert all(record["component"] == "c10d" for record in said)
    assert all(numbers == list(range(len(numbers))) for numbers in by_rank(records).values())


def test_a_rank_that_torchrun_starts_again_is_a_new_attempt_at_the_leased_level(lab: Lab) -> None:
    """It goes into the same run, and gets what was asked for while its predecessor lived."""
    pytest.importorskip("torch")
    collector = lab.collector("--quiet")
    job = torchrun(lab, RESTARTED, 2, collector, "--max-restarts", "1", "--monitor-interval", "0.1")
    lab.wait_for(lambda: lab.stored(collector) == 2)
    assert json.loads(lab.tlogs("set-logs", "dynamo=DEBUG", "--json"))["applied"] == "0-1"
    (lab.root / "die").touch()
    job.ends()
    [closing] = collector.stop()
    assert (closing.ranks, closing.lost) == (2, 0)
    said = [(record["attempt"], record["rank"], record["message"]) for record in lab.cat("--logger", "job")]
    expected = [(0, "attempt 0"), (1, "attempt 1"), (1, "at the leased level")]
    assert sorted(said) == sorted((attempt, rank, text) for attempt, text in expected for rank in (0, 1))
