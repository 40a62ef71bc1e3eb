"""Who this process is: from its environment, its arguments, its parent, or torch.distributed."""

from __future__ import annotations

import multiprocessing.process
import os
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from tlogs.worker.identity import (
    MARK,
    Mark,
    find_key,
    find_origin,
    helper_of,
    identify,
    is_in_group,
    learn,
    mark,
    unmark,
)
from tlogs_shared.errors import ConfigError
from tlogs_shared.origin import Origin

TORCHRUN = {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "8"}
ORIGIN = Origin("n1", 7, rank=0, provisional=True)


def test_arguments_beat_the_environment() -> None:
    found = identify({**TORCHRUN, "TLOGS_RUN": "theirs"}, rank=5, local_rank=2, world_size=6, run="mine")
    assert (found.rank, found.local_rank, found.world_size, found.run) == (5, 2, 6, "mine")
    assert not found.provisional


def test_the_environment_says_rank_run_and_what_torch_was_told() -> None:
    found = identify({**TORCHRUN, "TLOGS_RUN": "mine", "TORCH_LOGS": "+dynamo"})
    assert (found.rank, found.run, found.torch_logs, found.pid) == (3, "mine", "+dynamo", os.getpid())
    assert found.helper is None
    assert identify({"TLOGS_RUN": ""}).run is None


@pytest.mark.parametrize(
    ("environ", "arguments", "text"),
    [
        ({}, {"rank": -1}, "rank=-1"),
        ({}, {"rank": 4, "world_size": 4}, "rank=4, world_size=4"),
        ({"RANK": "x"}, {}, "RANK='x'"),
        ({"TLOGS_RUN": "a/b"}, {}, "TLOGS_RUN='a/b': expected a name"),
        ({}, {"run": "a b"}, "run='a b': expected a name"),
    ],
)
def test_what_cannot_be_is_told_at_set_up(environ: dict[str, str], arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        identify(environ, **arguments)


def test_a_child_with_its_parents_rank_variables_is_its_helper(monkeypatch: pytest.MonkeyPatch) -> None:
    environ = dict(TORCHRUN)
    parent = identify(environ)
    mark(environ, parent)
    assert identify(environ).helper is None, "a process is no helper of itself"
    monkeypatch.setattr(os, "getpid", lambda: parent.pid + 1)
    child = identify(environ)
    assert (child.rank, child.helper) == (3, f"pid{parent.pid + 1}")
    assert identify({**environ, "RANK": "4"}).helper is None, "a launcher gave it a rank of its own"
    before = dict(environ)
    mark(environ, child)
    unmark(environ)
    assert environ == before, "a helper's children are its rank's, too"
    monkeypatch.undo()
    unmark(environ)
    assert MARK not in environ


def test_without_rank_variables_only_a_child_of_multiprocessing_is_a_helper(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    environ: dict[str, str] = {}
    mark(environ, identify(environ))
    monkeypatch.setattr(os, "getpid", lambda: 1)
    assert identify(environ).helper is None
    monkeypatch.setattr(multiprocessing.process, "parent_process", lambda: object())
    monkeypatch.setattr(multiprocessing.process, "current_process", lambda: SimpleNamespace(name="SpawnProcess-1"))
    assert identify(environ).helper == "SpawnProcess-1"


def test_a_mark_that_is_none_is_passed_over() -> None:
    assert identify({**TORCHRUN, MARK: "x:3"}).helper is None


def test_a_fork_is_a_helper_with_a_stream_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiprocessing.process, "current_process", lambda: SimpleNamespace(name="ForkProcess-2"))
    parent = replace(ORIGIN, outbox="/tmp/parents")
    child = helper_of(parent)
    assert (child.helper, child.outbox, child.pid, child.rank) == ("ForkProcess-2", "", os.getpid(), 0)
    assert helper_of(child).helper == "ForkProcess-2/ForkProcess-2"


def test_a_data_loaders_worker_is_named_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    data = SimpleNamespace(get_worker_info=lambda: SimpleNamespace(id=4))
    monkeypatch.setitem(sys.modules, "torch.utils.data", data)
    assert helper_of(ORIGIN).helper == "DataLoader4"


class Group:
    """torch.distributed, as far as it is asked."""

    def __init__(self, *, available: bool = True, initialised: bool = True, broken: bool = False) -> None:
        self.is_available = lambda: available
        self.is_initialized = lambda: initialised
        self._broken = broken

    def get_rank(self) -> int:
        if self._broken:
            raise RuntimeError("taken down")
        return 5

    def get_world_size(self) -> int:
        return 6


@pytest.mark.parametrize(
    ("group", "known"),
    [
        (None, False),
        (SimpleNamespace(), False),  # half imported
        (Group(available=False), False),
        (Group(initialised=False), False),
        (Group(broken=True), False),
        (Group(), True),
    ],
)
@pytest.mark.parametrize("origin", [ORIGIN, replace(ORIGIN, rank=None), replace(ORIGIN, helper="x", provisional=False)])
def test_what_torch_distributed_knows_is_learnt_late(
    group: object, known: bool, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "torch.distributed", raising=False)
    if group is not None:
        monkeypatch.setitem(sys.modules, "torch.distributed", group)
    found = learn(origin)
    if not known:
        assert found is origin
    else:
        assert is_in_group()
        assert (found.rank, found.world_size, found.helper, found.provisional) == (5, 6, None, False)


def test_a_rank_that_a_launcher_gave_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.distributed", Group())
    origin = Origin("n1", 7, rank=3)
    assert learn(origin) is origin


SLURM = {"SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NTASKS": "8"}
OMPI = {"OMPI_COMM_WORLD_RANK": "6", "OMPI_COMM_WORLD_LOCAL_RANK": "2", "OMPI_COMM_WORLD_SIZE": "8"}
ASSUMED = (0, 0, 1)

# A launcher's variables; rank, local rank and world size found.
LAUNCHERS = [
    ({}, ASSUMED),
    (TORCHRUN, (3, 1, 8)),
    ({"RANK": "3"}, (3, None, None)),
    ({"RANK": " 3 ", "LOCAL_RANK": ""}, (3, None, None)),
    ({"RANK": ""}, ASSUMED),
    ({"LOCAL_RANK": "2"}, ASSUMED),
    ({"LOCAL_RANK": "2", "NODE_RANK": "0", "WORLD_SIZE": "8"}, (2, 2, 8)),
    ({"LOCAL_RANK": "2", "NODE_RANK": "1", "LOCAL_WORLD_SIZE": "4"}, (6, 2, None)),
    ({"LOCAL_RANK": "2", "NODE_RANK": "1", "NPROC_PER_NODE": "3"}, (5, 2, None)),
    ({"LOCAL_RANK": "2", "NODE_RANK": "1"}, ASSUMED),  # how many there are on a node is a guess
    (SLURM, ASSUMED),  # inside an allocation, not started by srun
    ({**SLURM, "SLURM_STEP_ID": "0"}, (5, 1, 8)),
    ({**SLURM, **TORCHRUN, "SLURM_STEP_ID": "0"}, (3, 1, 8)),
    (OMPI, (6, 2, 8)),
    ({**OMPI, "PMI_RANK": "1"}, (6, 2, 8)),
    ({"PMI_RANK": "7", "PMI_SIZE": "8", "MPI_LOCALRANKID": "0", "PMI_LOCAL_RANK": "3"}, (7, 0, 8)),
    ({"PMI_RANK": "7", "PMI_SIZE": "8", "PMI_LOCAL_RANK": "3"}, (7, 3, 8)),
]


@pytest.mark.parametrize(("environ", "found"), LAUNCHERS)
def test_the_rank_is_what_the_launcher_says(environ: dict[str, str], found: tuple[int, int, int]) -> None:
    origin = find_origin(environ, Origin("n1", 7))
    assert (origin.rank, origin.local_rank, origin.world_size) == found
    assert origin.provisional is (found == ASSUMED)


def test_torchruns_own_count_of_restarts_is_kept() -> None:
    found = find_origin(
        {**TORCHRUN, "TORCHELASTIC_RESTART_COUNT": "2", "TORCHELASTIC_MAX_RESTARTS": "3"}, Origin("n1", 7)
    )
    assert (found.restart_count, found.max_restarts) == (2, 3)


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({"RANK": "x"}, "RANK='x': expected a number"),
        ({"RANK": "-1"}, "RANK='-1'"),
        ({"RANK": "1.0"}, "RANK='1.0'"),
        ({"RANK": "8", "WORLD_SIZE": "8"}, "rank 8 in a world of 8: expected a rank from 0 to 7"),
        ({"RANK": "1000001"}, "rank 1000001"),
        ({"RANK": "0", "WORLD_SIZE": "many"}, "WORLD_SIZE='many'"),
        ({"SLURM_STEP_ID": "0", "SLURM_PROCID": "x"}, "SLURM_PROCID"),
    ],
)
def test_a_rank_that_cannot_be_is_named_at_set_up(environ: dict[str, str], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        find_origin(environ, Origin("n1", 7))


MASTER = {"MASTER_ADDR": "n1", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("environ", "key"),
    [
        ({}, "parent:n1:12"),
        (MASTER, "master:n1:29500"),
        ({"MASTER_ADDR": "n1"}, "parent:n1:12"),
        ({**MASTER, "SLURM_JOB_ID": "77"}, "slurm:77"),
        ({**MASTER, "TORCHELASTIC_RUN_ID": "none"}, "master:n1:29500"),
        ({**MASTER, "TORCHELASTIC_RUN_ID": ""}, "master:n1:29500"),
        ({**MASTER, "SLURM_JOB_ID": "77", "TORCHELASTIC_RUN_ID": "abc"}, "torchelastic:abc"),
    ],
)
def test_processes_of_one_job_have_one_key(environ: dict[str, str], key: str) -> None:
    assert find_key(environ, "n1", 12) == key


CHILD = Mark(12, ",,,,", 0, None, "process:n1:12")


@pytest.mark.parametrize(
    ("environ", "parent", "key"),
    [
        ({}, 12, CHILD.key),
        ({}, 13, CHILD.key),  # a shell is between
        (MASTER, 12, CHILD.key),  # as Lightning's first rank starts the others
        (MASTER, 13, "master:n1:29500"),  # a launcher is between
        ({"SLURM_JOB_ID": "77"}, 12, "slurm:77"),
    ],
)
def test_what_a_process_starts_is_of_its_job(environ: dict[str, str], parent: int, key: str) -> None:
    assert find_key(environ, "n1", parent, CHILD) == key


def test_run_and_rank_are_handed_down(monkeypatch: pytest.MonkeyPatch) -> None:
    environ: dict[str, str] = {}
    parent = replace(identify(environ, run="mine"), rank=3)
    mark(environ, parent)
    monkeypatch.setattr(os, "getpid", lambda: 1)
    child = identify(environ)
    assert (child.run, child.key, child.parent, child.helper) == ("mine", parent.key, parent.pid, None)
    monkeypatch.setattr(multiprocessing.process.current_process(), "_inheriting", True, raising=False)
    helper = identify(environ)
    assert (helper.rank, helper.provisional, helper.helper) == (3, False, "forkserver")
    assert helper_of(helper).helper == "forkserver"
    assert identify({**environ, "RANK": "4"}).helper is None


def test_a_process_that_nothing_says_anything_of_has_a_run_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = identify({})
    assert alone.key == f"process:{alone.host}:{os.getpid()}"
    assert identify({"RANK": "0"}).key == f"parent:{alone.host}:{os.getppid()}"
    monkeypatch.setattr(multiprocessing.process, "parent_process", lambda: object())
    assert identify({}).key == f"parent:{alone.host}:{os.getppid()}"


@pytest.mark.parametrize("value", ["", "x:3", "1:2:3:a/b:k", ":::::"])
def test_a_malformed_mark_is_skipped(value: str) -> None:
    assert Mark.find({MARK: value}) is None
