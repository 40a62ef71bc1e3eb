"""Who this process is: from its environment, its arguments, its parent, or torch.distributed."""

from __future__ import annotations

import multiprocessing
import os
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from tlogs.worker.identity import MARK, helper_of, identify, is_in_group, learn, mark, unmark
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
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: object())
    monkeypatch.setattr(multiprocessing, "current_process", lambda: SimpleNamespace(name="SpawnProcess-1"))
    assert identify(environ).helper == "SpawnProcess-1"


def test_a_mark_that_is_none_is_passed_over() -> None:
    assert identify({**TORCHRUN, MARK: "x:3"}).helper is None


def test_a_fork_is_a_helper_with_a_stream_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiprocessing, "current_process", lambda: SimpleNamespace(name="ForkProcess-2"))
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
