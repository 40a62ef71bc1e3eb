"""How a call from inside a job is told from others, and what it does where no collector answers."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

import tlogs
from tlogs.operator import broadcast as module
from tlogs_shared.protocol.lease import Lease
from tlogs_shared.rankset import RankSet

LEASE = Lease(0, {"c10d": 10, "dynamo": 20}, ttl_s=60.0, author="rank0")


def names(monkeypatch: pytest.MonkeyPatch, *leases: Lease) -> list[str]:
    """The names of these calls in a process that makes them in this order."""
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


SESSION = SimpleNamespace(rank=0, address=object(), run="run1", attempt=0, collector="tcp://127.0.0.1:5655")


class Operator:
    """A connection to a collector that raises `error` when it is asked."""

    error: Exception

    def __init__(self, address: object) -> None:
        pass

    def __enter__(self) -> Operator:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def change(self, lease: Lease, **_: Any) -> Any:
        raise self.error


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    monkeypatch.setattr(module, "current", lambda: SESSION)
    monkeypatch.setattr(module, "Operator", Operator)
    return SESSION


@pytest.mark.parametrize("error", [tlogs.CollectorUnavailable("no answer"), tlogs.ProtocolError("another version")])
def test_a_collector_that_does_not_answer_is_a_warning_also_with_wait(
    session: SimpleNamespace, error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A job must not fail because of its logs."""
    monkeypatch.setattr(Operator, "error", error, raising=False)
    assert tlogs.broadcast(c10d=10, wait=1.0) is None
    assert caplog.messages == [f"tlogs: broadcast: {error}"]


def test_a_collector_that_never_named_the_run_is_a_warning_too(
    session: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "ANSWER_S", 0.0)
    monkeypatch.setattr(session, "run", None)
    assert tlogs.broadcast(c10d=10, wait=0.001) is None
    assert caplog.messages == ["tlogs: broadcast: no answer from tcp://127.0.0.1:5655"]


def test_a_refusal_reaches_the_one_who_waits_for_it(
    session: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Operator, "error", tlogs.RequestRefused("unknown name 'x'; nothing was changed"), raising=False)
    with pytest.raises(tlogs.RequestRefused, match="nothing was changed"):
        tlogs.broadcast(x=10, wait=1.0)
    assert caplog.messages == []


def test_a_refusal_that_nobody_waits_for_is_a_warning(
    session: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Operator, "error", tlogs.RequestRefused("unknown name 'x'; nothing was changed"), raising=False)
    monkeypatch.setattr(threading.Thread, "start", lambda thread: thread.run())
    assert tlogs.broadcast(x=10) is None
    assert caplog.messages == ["tlogs: broadcast: unknown name 'x'; nothing was changed"]
