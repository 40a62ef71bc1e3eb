"""When a run is over, and what the daemon says then."""

from __future__ import annotations

from typing import Any

import pytest
from tests.collector.conftest import Rank, Stage

from tlogs_collector.hub import actions as do
from tlogs_shared.end import ENDED, FAILED, FINISHED, KILLED, End
from tlogs_shared.protocol import messages as m

FINE = End(FINISHED, code=0)
TORCHRUN = {"restart_count": 0, "max_restarts": 0}


def said(stage: Stage) -> list[str]:
    return [say.text for say in stage.took(do.Say)]


def failed(stage: Stage, **more: Any) -> End:
    return End(FAILED, exception="ValueError: loss is nan", ended_ns=stage.now.ns, **more)


def die(ranks: list[Rank], end: End) -> None:
    for rank in ranks:
        rank.bye(end=end)


def test_a_run_whose_ranks_have_all_finished_is_over_at_once(stage: Stage) -> None:
    ranks = stage.ranks(2)
    ranks[0].log(0, 5)
    ranks[0].bye(end=End(FINISHED, code=0, ended_ns=10**18 + 754 * 10**9))
    stage.wait(0.25)
    assert said(stage) == []
    ranks[1].bye()
    stage.wait(0.25)
    assert said(stage) == ["run made-up-1: FINISHED after 12 min · 2 ranks, 5 records, 0 dropped, 0 lost"]
    assert stage.took(do.Conclude) == [do.Conclude("made-up-1", 10**18 + 754 * 10**9)]
    stage.wait(60.0)
    assert said(stage) == [], "it is said once"
    assert stage.hub.last_words() == []
    assert stage.hub.closing_lines() == ["run made-up-1: 2 ranks, 5 records, 0 dropped, 0 lost"]


@pytest.mark.parametrize(
    ("origin", "at_once"),
    [
        (TORCHRUN, True),
        ({"restart_count": 3, "max_restarts": 3}, True),
        ({"restart_count": 2, "max_restarts": 3}, False),
        ({}, False),
        ({**TORCHRUN, "world_size": 3}, False),  # one has not come yet
    ],
)
def test_a_run_that_failed_is_over_at_once_only_where_nobody_starts_it_again(
    stage: Stage, origin: dict[str, Any], at_once: bool
) -> None:
    ranks = stage.ranks(2, **origin)
    stage.wait(3.0)
    die([ranks[1]], failed(stage))
    stage.wait(1.0)
    die([ranks[0]], End(KILLED, signal="SIGTERM", ended_ns=stage.now.ns))
    stage.wait(0.25)
    [line] = said(stage) if at_once else [""]
    stage.wait(19.0)
    assert said(stage) == []
    stage.wait(1.0)
    line = line or said(stage)[0]
    assert line.startswith("run made-up-1: FAILED after 4 s: rank 1 ValueError: loss is nan, ")
    assert line.endswith("; then 0 (SIGTERM, after it) · 2 ranks, 0 records, 0 dropped, 0 lost")


def test_an_elastic_restart_goes_on_in_the_run(stage: Stage) -> None:
    again = {"max_restarts": 3}
    die(stage.ranks(2, restart_count=0, **again), failed(stage))
    stage.wait(19.0)
    ranks = stage.ranks(2, restart_count=1, **again)
    stage.wait(30.0)
    assert said(stage) == []
    die(ranks, FINE)
    stage.wait(0.25)
    assert [line.split()[2] for line in said(stage)] == ["FINISHED"]


def test_a_run_that_goes_on_after_all_is_live_again(stage: Stage) -> None:
    [rank] = stage.ranks(1)
    rank.bye(end=FINE)
    stage.wait(0.25)
    assert stage.hub.runs["made-up-1"].is_concluded
    stage.took(do.Conclude)
    stage.rank(0, run="made-up-1").hello()
    assert stage.took(do.Conclude) == [do.Conclude("made-up-1", None)]
    assert not stage.hub.runs["made-up-1"].is_concluded
    stage.wait(60.0)
    assert len(said(stage)) == 1


def test_what_a_dead_rank_left_on_this_host_is_waited_for(stage: Stage) -> None:
    [rank] = stage.ranks(1, outbox="/tmp/box", **TORCHRUN)
    rank.head = 3
    rank.die()
    stage.wait(2.0)
    assert (rank.peer.state, said(stage)) == (ENDED, [])
    rank.connection = b"recoverer"
    rank.hello(recovering=True)
    stage.wait(30.0)
    assert said(stage) == [], "it is being brought in"
    rank.log(0, 3, recovered=True)
    rank.bye(end=End(KILLED, signal="SIGKILL", ended_ns=10**18 + 2 * 10**9))
    stage.wait(0.25)
    [line] = said(stage)
    assert line.startswith("run made-up-1: FAILED after 2 s: rank 0 SIGKILL, ")
    assert line.endswith(" · 1 rank, 3 records, 0 dropped, 0 lost")


def test_what_nobody_brings_in_is_not_waited_for_without_end(stage: Stage) -> None:
    [rank] = stage.ranks(1, outbox="/tmp/box", **TORCHRUN)
    rank.die()
    stage.wait(2.0)
    stage.wait(20.0)
    [line] = said(stage)
    assert "UNKNOWN" in line


def test_helpers_and_launchers_do_not_keep_a_run_live(stage: Stage) -> None:
    [rank] = stage.ranks(1)
    stage.rank(0, helper="DataLoader0", world_size=1).hello()
    stage.rank(None).hello()
    rank.bye(end=FINE)
    stage.wait(0.25)
    assert len(said(stage)) == 1
    [report] = stage.say(b"op", m.Ask(1, "runs"))
    assert isinstance(report, m.Report)
    assert [(row["live"], row["over"]) for row in report.data] == [(False, True)]


def test_where_only_other_processes_were_they_decide(stage: Stage) -> None:
    launcher = stage.rank(None)
    launcher.hello()
    stage.wait(60.0)
    assert said(stage) == []
    launcher.bye(end=FINE)
    stage.wait(0.25)
    stage.wait(20.0)
    assert len(said(stage)) == 1


def test_the_daemon_that_ends_says_which_ranks_run_on(stage: Stage) -> None:
    ranks = stage.ranks(3)
    ranks[0].bye(end=FINE)
    assert stage.hub.last_words() == [
        "run made-up-1: 2 ranks were still running; they keep their records until a collector is back"
    ]
    ranks[1].bye(end=FINE)
    assert stage.hub.last_words() == [
        "run made-up-1: 1 rank was still running; it keeps its records until a collector is back"
    ]
    ranks[2].bye(end=FINE)
    [line] = stage.hub.last_words()
    assert line.startswith("run made-up-1: FINISHED"), "it had no time to be said"
