"""Changes of levels: who is asked, what they answered, and what stands in the journal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.collector.conftest import Rank, Stage, lay

from tlogs_collector.hub import actions as do
from tlogs_collector.hub import changes
from tlogs_shared.protocol import messages as m
from tlogs_shared.rankset import RankSet

RUN = "made-up-1"


@pytest.fixture
def ask(stage: Stage) -> Callable[[Any], m.Report | None]:
    """Have an operator say something; the report, if it came at once."""
    stage.say(b"op", m.Ask(0, "hello"))

    def say(message: m.Message) -> m.Report | None:
        return reported(stage.say(b"op", message))

    return say


def reported(messages: list[m.Message], number: int | None = None) -> m.Report | None:
    """The only report in *messages*."""
    found = [message for message in messages if isinstance(message, m.Report)]
    assert len(found) <= 1
    return found[0] if found else None


def report(stage: Stage) -> m.Report:
    """The report that the operator has got meanwhile."""
    found = reported(stage.heard(b"op"))
    assert found is not None
    return found


def events(stage: Stage, run: str = RUN) -> list[str]:
    return [line["event"] for line in stage.control[run]]


def test_a_lease_reaches_everybody_and_is_reported_when_all_have_answered(stage: Stage, ask: Any) -> None:
    ranks = stage.ranks(4)
    helper = stage.rank(1, helper="DataLoader0", world_size=4)
    helper.hello()
    stage.sent.clear()
    assert ask(lay(1)) is None
    for rank in [*ranks, helper]:
        [settings] = stage.heard(rank.connection)
        assert isinstance(settings, m.Settings)
        assert (settings.revision, settings.leases[0]["ttl_s"]) == (1, 600.0)
    stage.wait(0.25)
    ranks[0].answer(1, "applied")
    ranks[1].answer(1, "ignored", "TORCH_LOGS=+dynamo")
    ranks[2].answer(1, "failed", "no logger of that name")
    helper.answer(1)
    assert stage.heard(b"op") == []
    ranks[3].answer(1, "applied")
    assert report(stage) == m.Report(
        1,
        "",
        {
            "run": RUN,
            "revision": 1,
            "until_ns": stage.now.ns - 250_000_000 + 600 * 10**9,
            "ended": [],
            "applied": "0,3",
            "ignored": {"1": "TORCH_LOGS=+dynamo"},
            "failed": {"2": "no logger of that name"},
            "silent": "",
            "took_ms": 250.0,
        },
    )


def test_who_when_what_scope_and_answers_stand_in_the_journal(stage: Stage, ask: Any) -> None:
    [rank] = stage.ranks(1)
    began_ns = stage.now.ns
    ask(lay(1, ranks=RankSet.parse("0"), hosts="node*"))
    rank.answer(1)
    stage.wait(3.0)
    ask(m.Change(2, None, 5.0, ends=[], author="bob@desk"))
    rank.answer(2)
    lease, answers, reset, answers_to_reset = stage.control[RUN]
    assert (lease["time_ns"], lease["event"], lease["revision"]) == (began_ns, "lease", 1)
    what = {"author": "ann@desk", "settings": {"c10d": 10}, "ranks": "0", "hosts": "node*", "revision": 1}
    assert {name: lease["lease"][name] for name in what} == what
    assert (answers["event"], answers["revision"], answers["applied"]) == ("answers", 1, "0")
    assert (reset["event"], reset["ends"], reset["author"], reset["revision"]) == ("reset", [1], "bob@desk", 2)
    assert (answers_to_reset["ended"], answers_to_reset["applied"]) == ([1], "0")


def test_who_does_not_answer_in_time_is_silent(stage: Stage, ask: Any) -> None:
    quick, slow = stage.ranks(2)
    ask(lay(1, timeout_s=2.0))
    quick.answer(1)
    slow.beat(revision=1)  # it has the settings; what became of them it has not said
    stage.wait(1.9)
    assert reported(stage.heard(b"op")) is None
    stage.wait(0.1)
    data = report(stage).data
    assert (data["applied"], data["silent"], data["took_ms"]) == ("0", "1", 2000.0)
    slow.answer(1)
    assert stage.heard(b"op") == []


@pytest.mark.parametrize("timeout_s", [-5.0, 0.0])
def test_who_will_not_wait_is_told_at_once_that_all_are_silent(stage: Stage, ask: Any, timeout_s: float) -> None:
    stage.ranks(2)
    ask(lay(1, timeout_s=timeout_s))
    stage.wait(0.0)
    assert report(stage).data["silent"] == "0-1"


def test_nobody_waits_for_a_rank_that_has_ended(stage: Stage, ask: Any) -> None:
    first, second, third = stage.ranks(3)
    ask(lay(1))
    first.answer(1)
    second.bye()
    third.die()
    assert stage.heard(b"op") == []
    stage.wait(2.0)
    data = report(stage).data
    why = "it ended before it answered"
    assert (data["applied"], data["failed"]) == ("0", {"1": why, "2": why})


def test_a_job_that_restarts_before_it_answers_keeps_the_lease(stage: Stage, ask: Any) -> None:
    [rank] = stage.ranks(1, restart_count=0)
    ask(lay(1))
    rank.die()
    stage.wait(2.0)
    assert report(stage).error == ""
    again = stage.rank(0, world_size=1, restart_count=1)
    _, settings = again.hello()
    assert isinstance(settings, m.Settings)
    assert [lease["revision"] for lease in settings.leases] == [1]


@pytest.mark.parametrize(
    ("scope", "asked"),
    [
        ({"ranks": RankSet.parse("1-2")}, ["1", "2"]),
        ({"ranks": RankSet.parse("^0")}, ["1", "2", "3"]),
        ({"hosts": "a*"}, ["0", "1"]),
        ({"hosts": "b1", "ranks": RankSet.parse("0-2")}, ["2"]),
    ],
)
def test_only_ranks_in_scope_are_waited_for(stage: Stage, ask: Any, scope: dict[str, Any], asked: list[str]) -> None:
    for number, host in enumerate(["a1", "a1", "b1", "b1"]):
        stage.rank(number, host=host).hello()
    ask(lay(1, timeout_s=1.0, **scope))
    stage.wait(1.0)
    assert list(RankSet.parse(report(stage).data["silent"])) == [int(rank) for rank in asked]


@pytest.mark.parametrize(
    ("scope", "where"),
    [
        ({"ranks": RankSet.parse("7")}, "rank 7"),
        ({"ranks": RankSet.parse("7-9")}, "ranks 7-9"),
        ({"hosts": "x"}, "rank on hosts x"),
        ({"ranks": RankSet.parse("^0-1")}, "rank ^0-1"),
    ],
)
def test_a_scope_without_a_live_rank_changes_nothing(stage: Stage, ask: Any, scope: dict[str, Any], where: str) -> None:
    stage.ranks(2)
    found = ask(lay(1, **scope))
    assert found.error == f"no live {where} in run {RUN}; live: 0-1"
    assert stage.control[RUN] == []


def test_an_empty_scope_changes_nothing(stage: Stage, ask: Any) -> None:
    stage.ranks(2)
    assert ask(lay(1, ranks=RankSet())).error == "the rank set is empty: nothing to change"
    assert stage.control[RUN] == []


def test_a_lease_that_cannot_be_read_changes_nothing(stage: Stage, ask: Any) -> None:
    stage.ranks(1)
    found = ask(m.Change(1, None, 5.0, lease={"settings": 5}))
    assert "lease" in found.error
    assert stage.control[RUN] == []


# Leases that hold nowhere.


def failing(ranks: list[Rank], revision: int, *reasons: str) -> None:
    for number, rank in enumerate(ranks):
        rank.answer(revision, "failed", reasons[number % len(reasons)])


@pytest.mark.parametrize(
    ("reasons", "error"),
    [
        (["unknown name 'dinamo'"], "unknown name 'dinamo'; nothing was changed"),
        (["b", "a"], "a (and 1 other reasons); nothing was changed"),
    ],
)
def test_a_lease_that_fails_on_every_rank_is_withdrawn(stage: Stage, ask: Any, reasons: list[str], error: str) -> None:
    """It must not wait for a rank where it suddenly would hold."""
    ranks = stage.ranks(2)
    ask(lay(1))
    failing(ranks, 1, *reasons)
    assert report(stage).error == error
    assert events(stage) == ["lease", "answers", "withdrawn"]
    _, settings = stage.rank(2).hello()
    assert isinstance(settings, m.Settings)
    assert (settings.revision, settings.leases) == (2, [])


def test_a_lease_that_is_withdrawn_gives_its_place_back_to_the_one_before(stage: Stage, ask: Any) -> None:
    ranks = stage.ranks(2)
    ask(lay(1))
    for rank in ranks:
        rank.answer(1)
    ask(lay(2, settings={"c10d": 20}))
    failing(ranks, 2, "the logger is disabled")
    [lease] = stage.hub.runs[RUN].leases
    assert (lease.revision, lease.settings) == (1, {"c10d": 10})
    again = Stage()
    again.control[RUN] = stage.control[RUN]
    again.rank(0, run=RUN).hello()
    assert again.hub.runs[RUN].leases == [lease]


def test_a_lease_that_was_reset_meanwhile_is_not_withdrawn_again(stage: Stage, ask: Any) -> None:
    ranks = stage.ranks(2)
    ask(lay(1))
    ask(m.Change(2, None, 5.0, ends=[1]))
    for rank in ranks:
        rank.answers = {}
        rank.say(m.Applied([m.AppliedRow([rank.stream], 2, {}, b"")]))
    reports = [message for message in stage.heard(b"op") if isinstance(message, m.Report)]
    assert [found.data["failed"] for found in reports if found.number == 1] == [
        {"0": "the lease was ended or replaced meanwhile", "1": "the lease was ended or replaced meanwhile"}
    ]
    assert [found.data["applied"] for found in reports if found.number == 2] == ["0-1"]
    assert events(stage).count("withdrawn") == 0


def test_a_lease_that_was_replaced_meanwhile_is_not_withdrawn_again(stage: Stage, ask: Any) -> None:
    [rank] = stage.ranks(1)
    ask(lay(1))
    ask(lay(2))
    rank.say(m.Applied([m.AppliedRow([rank.stream], 2, {1: ("failed", "disabled"), 2: ("applied", "")}, b"")]))
    first, second = (found for found in stage.heard(b"op") if isinstance(found, m.Report))
    assert (first.error, second.error) == ("disabled; nothing was changed", "")
    assert [lease.revision for lease in stage.hub.runs[RUN].leases] == [2]
    assert events(stage).count("withdrawn") == 0


def test_an_answer_of_no_known_kind_is_a_failure(stage: Stage, ask: Any) -> None:
    first, second = stage.ranks(2)
    ask(lay(1))
    first.answer(1)
    second.answer(1, "silent", "of course")
    assert report(stage).data["failed"] == {"1": "it gave no answer about this lease"}


# Ends.


def test_some_or_all_leases_are_ended_and_only_ranks_that_held_them_answer(stage: Stage, ask: Any) -> None:
    first, second = stage.ranks(2)
    ask(lay(1, settings={"a": 10}, ranks=RankSet.parse("0")))
    ask(lay(2, settings={"b": 10}))
    ask(lay(3, settings={"c": 10}))
    for rank in (first, second):
        answers = {revision: ("applied", "") for revision in (1, 2, 3)}
        rank.say(m.Applied([m.AppliedRow([rank.stream], 3, answers, b"")]))
    stage.heard(b"op")
    ask(m.Change(4, None, 5.0, ends=[1]))
    first.answer(4)
    data = report(stage).data
    assert (data["ended"], data["applied"], data["until_ns"]) == ([1], "0", None)
    ask(m.Change(5, None, 5.0, ends=[]))
    first.answer(5)
    second.answer(5)
    assert report(stage).data["ended"] == [2, 3]
    assert ask(m.Change(6, None, 5.0, ends=[1])).error == f"no lease 1 in force in run {RUN}; none is in force"
    before = list(stage.control[RUN])
    nothing = ask(m.Change(7, None, 5.0, ends=[]))
    assert (nothing.error, nothing.data["ended"], nothing.data["silent"]) == ("", [], "")
    assert [line["event"] for line in stage.control[RUN][len(before) :]] == ["answers"]


def test_leases_of_a_job_that_has_ended_can_be_ended(stage: Stage, ask: Any) -> None:
    [rank] = stage.ranks(1)
    ask(lay(1, ttl_s=None))
    rank.answer(1)
    rank.bye()
    stage.heard(b"op")
    found = ask(m.Change(2, RUN, 5.0, ends=[1]))
    assert (found.error, found.data["ended"], found.data["applied"]) == ("", [1], "")


def test_the_end_of_a_lease_is_a_line_in_the_journal(stage: Stage, ask: Any) -> None:
    [rank] = stage.ranks(1)
    ask(lay(1, ttl_s=8.0))
    rank.answer(1)
    for _ in range(8):
        rank.beat(revision=1)
        stage.wait(1.0)
    assert stage.control[RUN][-1] == {"time_ns": stage.now.ns, "event": "expired", "ends": [1]}
    assert events(stage).count("expired") == 1
    assert [type(message) for message in rank.beat(revision=1)] == [m.Beat], "the rank ended it by its own clock"


def test_leases_are_known_after_a_restart_with_what_is_left_of_their_time(stage: Stage, ask: Any) -> None:
    stage.ranks(1)
    ask(lay(1, settings={"a": 10}, ttl_s=60.0))
    ask(lay(2, settings={"b": 10}, ttl_s=5.0))
    again = Stage()
    again.control[RUN] = stage.control[RUN]
    again.wait(20.0)
    _, settings = again.rank(0, run=RUN).hello()
    assert isinstance(settings, m.Settings)
    assert [(lease["settings"], lease["ttl_s"]) for lease in settings.leases] == [({"a": 10}, 40.0)]
    assert settings.revision == 2
    again.wait(1.0)
    assert events(again)[-1] == "expired", "what ended while nobody looked is noted"


# Bounds, several runs, and calls from inside the job.


def test_there_is_a_bound_to_the_leases_of_a_run(stage: Stage, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "MAX_LEASES", 2)
    stage.ranks(1)
    ask(lay(1, settings={"a": 10}))
    ask(lay(2, settings={"b": 10}, ttl_s=1.0))
    assert "end some with: tlogs reset" in ask(lay(3, settings={"c": 10})).error
    stage.wait(1.0)
    assert ask(lay(4, settings={"c": 10})) is None


def test_a_change_without_a_run_is_refused_where_several_are_live(stage: Stage, ask: Any) -> None:
    rank = stage.rank(0, key="a")
    rank.hello()
    stage.rank(0, key="b").hello()
    for message in (lay(1), m.Change(1, None, 5.0, ends=[])):
        assert ask(message).error == "several runs are live: made-up-1, made-up-2; choose one with --run"
    assert stage.control == {"made-up-1": [], "made-up-2": []}
    assert ask(lay(2, run="made-up-2")) is None
    assert events(stage, "made-up-2") == ["lease"]
    rank.bye()
    assert ask(lay(3)) is None
    assert events(stage, "made-up-2") == ["lease", "lease"]


def test_the_same_call_from_many_ranks_is_one_lease_with_one_answer(stage: Stage) -> None:
    ranks = stage.ranks(3)
    for number in range(3):
        stage.say(b"call%d" % number, m.Ask(1, "hello"))
    assert [reported(stage.say(b"call%d" % number, lay(2, once="0:x:1"))) for number in range(2)] == [None, None]
    for rank in ranks:
        rank.answer(1)
    early = [reported(stage.heard(b"call%d" % number)) for number in range(2)]
    late = reported(stage.say(b"call2", lay(9, once="0:x:1")))
    assert late is not None
    assert [found.data["applied"] for found in [*early, late] if found] == ["0-2"] * 3
    assert (late.number, late.data["revision"]) == (9, 1)
    assert events(stage) == ["lease", "answers"]
    stage.say(b"call0", lay(3, once="0:x:2"))
    assert events(stage) == ["lease", "answers", "lease"]


def test_only_so_many_calls_are_remembered(stage: Stage, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "MAX_ONCE", 2)
    stage.ranks(1)
    for number, once in enumerate(["a", "b", "c", "c", "a"]):
        ask(lay(number, once=once))
    assert events(stage) == ["lease"] * 4


def test_an_operator_that_has_gone_costs_the_change_nothing(stage: Stage, ask: Any) -> None:
    [rank] = stage.ranks(1)
    ask(lay(1))
    stage.hub.unreachable(b"op")
    rank.answer(1)
    assert events(stage) == ["lease", "answers"]
    assert stage.took(do.Append) == []
