"""How a call from inside a job is told from others."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from importlib import import_module

import pytest

from tlogs_shared.protocol.lease import Lease
from tlogs_shared.rankset import RankSet

LEASE = Lease(0, {"c10d": 10, "dynamo": 20}, ttl_s=60.0, author="rank0")


def names(monkeypatch: pytest.MonkeyPatch, *leases: Lease) -> list[str]:
    """The names of these calls in a process that makes them in this order."""
    module = import_module("tlogs.operator.broadcast")  # the package has a function of this name
    monkeypatch.setattr(module, "_calls", Counter())
    return [module._name_of(lease) for lease in leases]


def test_the_same_call_from_two_ranks_has_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever makes it, in whatever order its settings were written, and whatever else only one of them calls."""
    other = replace(LEASE, settings={"guards": True})
    same = replace(LEASE, settings={"dynamo": 20, "c10d": 10}, author="rank1")
    first = names(monkeypatch, other, LEASE, LEASE)
    second = names(monkeypatch, same, same)
    assert first[1:] == second
    assert len(set(first)) == 3, "a call that is made again is another call"


@pytest.mark.parametrize(
    "changed",
    [{"settings": {"c10d": 10}}, {"ranks": RankSet.parse("0")}, {"hosts": "a"}, {"ttl_s": None}, {"force": True}],
)
def test_calls_that_ask_for_something_else_have_other_names(
    changed: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = names(monkeypatch, LEASE, replace(LEASE, **changed))  # type: ignore[arg-type]
    assert one.split(":")[0] != other.split(":")[0]
