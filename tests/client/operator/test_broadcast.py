"""How a call from inside a job is told from others, and what it does where no collector answers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest

import tlogs
from tlogs.access.agent_messages import Report
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


DATA = {
    "run": "run1", "revision": 1, "until_ns": None, "ended": [], "applied": "0-3", "ignored": {}, "failed": {},
    "silent": "", "took_ms": 1.0,
}  # fmt: skip


@dataclass
class Session:
    """The session of this process, whose agent answers with `report`."""

    report: Report | None = None
    rank: int = 0
    collector: str | None = "tcp://127.0.0.1:5655"
    asked: list[tuple[Lease, float]] = field(default_factory=list)

    @property
    def stream(self) -> SimpleNamespace | None:
        return None if self.collector is None else SimpleNamespace(control=self)

    def ask(self, lease: Lease, once: str, timeout: float) -> Report | None:
        self.asked.append((lease, timeout))
        return self.report


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Session:
    found = Session()
    monkeypatch.setattr(module, "current", lambda: found)
    return found


def test_it_returns_at_once_unless_it_is_told_to_wait(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    assert tlogs.broadcast(c10d=10) is None
    [(lease, timeout)] = session.asked
    assert (lease.settings, lease.author, timeout) == ({"c10d": 10}, "rank0", 0.0)
    assert caplog.messages == []


def test_answers_that_are_waited_for_are_returned(session: Session) -> None:
    session.report = Report(1, "", DATA)
    result = tlogs.broadcast(c10d=10, wait=5.0)
    assert result is not None
    assert str(result.applied) == "0-3"


def test_a_collector_that_does_not_answer_is_a_warning_also_with_wait(
    session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    """A job must not fail because of its logs."""
    assert tlogs.broadcast(c10d=10, wait=1.0) is None
    assert caplog.messages == ["tlogs: broadcast: no answer from tcp://127.0.0.1:5655"]


def test_without_a_collector_it_says_what_is_missing(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    session.collector = None
    assert tlogs.broadcast(c10d=10) is None
    assert "call tlogs.init() first" in caplog.text
    assert session.asked == []


def test_a_refusal_reaches_the_one_who_waits_for_it(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    session.report = Report(1, "unknown name 'x'; nothing was changed", None)
    with pytest.raises(tlogs.RequestRefused, match="nothing was changed"):
        tlogs.broadcast(x=10, wait=1.0)
    assert caplog.messages == []
