"""What an operator's API makes of a collector's answers, and asks of it."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any, cast

import pytest

from tlogs.access.connection import Operator, author
from tlogs.access.discovery import Address
from tlogs.operator.job import Job, Result, connect
from tlogs_shared.errors import CollectorUnavailable, ConfigError, DirectiveError
from tlogs_shared.protocol.endpoint import Endpoint
from tlogs_shared.protocol.lease import Lease
from tlogs_shared.protocol.messages import News
from tlogs_shared.protocol.rows import ChangeReport
from tlogs_shared.protocol.wire import pack_plain
from tlogs_shared.rankset import RankSet
from tlogs_shared.storage.position import Position

DATA: ChangeReport = {
    "run": "run",
    "revision": 3,
    "until_ns": 1_000_000_000,
    "ended": [],
    "applied": "0-6",
    "ignored": {"7": "TORCH_LOGS=+dynamo"},
    "failed": {},
    "silent": "",
    "took_ms": 11.8,
}


class Asked:
    """An operator that writes down what it is asked, and answers from a table."""

    address = Address(Endpoint("node0", 5655), None, "argument", "none")

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.changes: list[tuple[Any, ...]] = []
        self.is_closed = False

    def runs(self) -> Any:
        return self.answers["runs"]

    def ranks(self, run: str | None, *, every_attempt: bool) -> Any:
        return self.answers["ranks"]

    def levels(self, run: str | None) -> Any:
        return self.answers["levels"]

    def change(self, lease: Lease, *, run: str | None, timeout: float) -> ChangeReport:
        self.changes.append((lease, run, timeout))
        return DATA

    def reset(self, revisions: Any, *, run: str | None, timeout: float) -> ChangeReport:
        self.changes.append((revisions, run, timeout))
        return {**DATA, "ended": [1, 2], "until_ns": None, "ignored": {}}

    def close(self) -> None:
        self.is_closed = True


def job_of(asked: Asked, run: str | None = None) -> Job:
    return Job(cast(Operator, asked), run)


def test_a_change_says_who_asks_for_what_and_for_how_long() -> None:
    asked = Asked()
    with job_of(asked, "run") as job:
        job.set_logs(c10d=10, recompiles=True, modules={"my.module": 20}, ranks="0-7", hosts="n*", ttl=60, timeout=2.0)
        job.set_logs(guards=False, ranks=RankSet.parse("^5"), ttl=None, replace=True, force=True)
    assert asked.is_closed
    first = Lease(
        0,
        {"c10d": 10, "recompiles": True, "my.module": 20},
        RankSet.parse("0-7"),
        "n*",
        ttl_s=60,
        author=author(),
    )
    second = Lease(0, {"guards": False}, RankSet.parse("^5"), author=author(), replace=True, force=True)
    assert asked.changes == [(first, "run", 2.0), (second, "run", 5.0)]


def test_a_job_shows_where_it_is_connected() -> None:
    assert repr(job_of(Asked(), "mine")) == "<tlogs.Job at tcp://node0:5655, run mine>"
    assert repr(job_of(Asked())) == "<tlogs.Job at tcp://node0:5655, run the newest>"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"c10d": "DEBUG"}, DirectiveError),
        ({"c10d": -1}, DirectiveError),
        ({"c10d": 1.0}, DirectiveError),
        ({"modules": {"x": None}}, DirectiveError),
        ({"c10d": 10, "ranks": "some"}, ConfigError),
        ({}, DirectiveError),
    ],
)
def test_a_call_that_makes_no_sense_asks_for_nothing(arguments: dict[str, Any], error: type[Exception]) -> None:
    asked = Asked()
    with pytest.raises(error):
        job_of(asked).set_logs(**arguments)
    assert asked.changes == []


def test_the_answers_are_rank_sets_and_reasons() -> None:
    result = job_of(Asked()).set_logs(c10d=10)
    assert (result.applied, result.silent) == (RankSet.parse("0-6"), RankSet())
    assert (result.ignored, result.failed) == ({7: "TORCH_LOGS=+dynamo"}, {})
    assert result.until == datetime.fromtimestamp(1, tz=timezone.utc)
    assert not result.is_complete
    assert result.asdict() == {
        "run": "run",
        "revision": 3,
        "until": "1970-01-01T00:00:01+00:00",
        "applied": "0-6",
        "ignored": {"7": "TORCH_LOGS=+dynamo"},
        "failed": {},
        "silent": "",
        "took_ms": 11.8,
    }


@pytest.mark.parametrize(
    ("changed", "complete"),
    [({}, True), ({"ignored": {"1": "x"}}, False), ({"failed": {"1": "x"}}, False), ({"silent": "1"}, False)],
)
def test_a_change_is_complete_where_every_rank_applied_it(changed: dict[str, Any], complete: bool) -> None:
    assert Result.of(cast(ChangeReport, {**DATA, "ignored": {}, **changed})).is_complete is complete


def test_leases_are_ended() -> None:
    asked = Asked()
    result = job_of(asked).reset(1, 2, timeout=3.0)
    assert asked.changes == [((1, 2), None, 3.0)]
    assert (result.ended, result.until, result.asdict()["until"]) == ([1, 2], None, None)


def test_levels_are_shown_by_rank_though_the_same_report_comes_once() -> None:
    report = {"components": {"c10d": {"configured": "DEBUG", "effective": "DEBUG"}}, "artifacts": ["guards"]}
    found = {"run": "run", "leases": [{"revision": 1}]}
    groups = [["0,10", pack_plain(report)], ["2", b""], ["1", b"\xc1 garbage"]]
    levels = job_of(Asked(levels={**found, "groups": groups})).levels()
    assert levels == {**found, "ranks": {"0": report, "1": {}, "2": {}, "10": report}}
    assert list(levels["ranks"]) == ["0", "1", "2", "10"]


def test_ranks_are_rows() -> None:
    assert job_of(Asked(ranks={"run": None, "rows": []})).ranks() == []


@pytest.mark.parametrize(
    ("run", "rows", "text"),
    [
        (None, [], "no run has begun yet at tcp://node0:5655"),
        ("x", [{"name": "run1", "over": False, "created_ns": 1}], "no run 'x' at tcp://node0:5655; there is: run1"),
    ],
)
def test_there_is_nothing_to_tail_before_a_run_has_begun(run: str | None, rows: list[Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        job_of(Asked(runs=rows), run).tail()


class Tailed(Asked):
    """A collector with one live run. It is killed, and after a keep-alive it answers again, if at all."""

    def __init__(self, *, returns: bool) -> None:
        super().__init__(runs=[{"name": "run1", "over": False, "created_ns": 1}])
        self.returns = returns
        self.is_back = False

    def follow(self, run: str | None) -> None:
        assert run == "run1"

    def news(self, timeout: float) -> News | None:
        return News("run1", 0, 0, 1, live=False, closing=False) if self.is_back else None

    def keep_alive(self) -> None:
        if not self.returns:
            raise CollectorUnavailable("gone")
        self.is_back = True

    def index(self, run: str, position: Position) -> tuple[list[Any], Position]:
        return [], position


@pytest.mark.parametrize("returns", [True, False], ids=["comes back", "stays away"])
def test_a_tail_joins_a_restarted_collector_and_ends_where_none_comes(
    monkeypatch: pytest.MonkeyPatch, returns: bool
) -> None:
    monkeypatch.setattr("tlogs.reading.subscription._KEEP_ALIVE_S", 0.0)
    monkeypatch.setattr("tlogs.reading.subscription._GONE_S", 0.0 if not returns else 10.0)
    collector = Tailed(returns=returns)
    assert list(job_of(collector).tail()) == []
    assert collector.is_back is returns


def test_a_filter_that_is_not_known_is_named_by_the_call() -> None:
    job = job_of(Tailed(returns=True))
    with pytest.raises(TypeError, match=r"unknown filter 'rank' \(did you mean 'ranks'\?\)"):
        job.tail(rank=0)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="level 'loud'"):
        job.tail(level="loud", follow=False)


def test_without_a_collector_there_is_nothing_to_connect_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.delenv("TLOGS_COLLECTOR", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with pytest.raises(CollectorUnavailable, match="no collector: start one with"):
        connect()
