"""Which run a stream belongs to: the README's three rules, as tables; and what becomes of a run that is continued."""

from __future__ import annotations

from typing import Any

import pytest
from tests.collector.conftest import Kept, Rank, Stage

from tlogs_collector.hub import actions as do
from tlogs_collector.hub.hub import Known
from tlogs_shared.origin import Origin, StreamInfo
from tlogs_shared.protocol import messages as m


def end(rank: Rank, how: str) -> None:
    """This rank says bye, or its process dies and the hub notices."""
    if how == "bye":
        rank.bye()
    else:
        rank.die()
        rank.stage.wait(2.0)


@pytest.mark.parametrize(
    ("only_run", "asked", "run"),
    [
        ("forced", None, "forced"),
        ("forced", "mine", "forced"),
        (None, "mine", "mine"),
        (None, None, "made-up-1"),
    ],
)
def test_a_forced_run_beats_one_that_is_asked_for_and_that_a_made_up_one(
    only_run: str | None, asked: str | None, run: str
) -> None:
    stage = Stage(only_run=only_run)
    [welcome, _] = stage.rank().hello(run=asked)
    assert isinstance(welcome, m.Welcome)
    assert welcome.run == run
    [opened] = stage.took(do.OpenRun)
    assert opened == do.OpenRun(run, {"key": "job", "created_ns": stage.now.ns})


@pytest.mark.parametrize("how", ["bye", "gone", "alive"])
def test_a_run_that_is_asked_for_by_name_is_continued_whether_or_not_anyone_lives(stage: Stage, how: str) -> None:
    first = stage.rank(0, run="mine")
    first.hello()
    if how != "alive":
        end(first, how)
    second = stage.rank(0, run="mine", key="another job")
    second.hello()
    assert list(stage.hub.runs) == ["mine"]
    assert second.peer.info.attempt == (0 if how == "alive" else 1)


@pytest.mark.parametrize("name", ["..", ".", "a/b", "", "x" * 129, "é"])
def test_what_is_no_name_of_a_run_is_refused(stage: Stage, name: str) -> None:
    """A name becomes a directory."""
    [refused] = stage.rank().hello(run=name)
    assert isinstance(refused, m.Refused)
    assert refused.code == "run"
    assert stage.hub.runs == {}


SAME: dict[str, Any] = {}
AGAIN = {"restart_count": 1}

# How the only rank of a run of two ranks ended; who comes then, how long after; whether the run is the same, and
# which attempt it is.
WHO_COMES = [
    ("alive", 1, SAME, 0.0, True, 0),
    ("alive", 0, SAME, 0.0, False, 0),  # the same rank is alive: another job
    ("alive", 0, {"key": "other"}, 0.0, False, 0),
    ("alive", 1, {"key": "other"}, 0.0, False, 0),
    ("alive", 0, AGAIN, 0.0, True, 1),  # torchrun starts a rank again only once the old one has ended
    ("alive", 0, {"provisional": True}, 0.0, True, 0),
    ("alive", 0, {"helper": "DataLoader0"}, 0.0, True, 0),
    ("alive", None, SAME, 0.0, True, 0),  # a launcher
    ("bye", 0, SAME, 0.0, False, 0),
    ("gone", 0, SAME, 0.0, False, 0),
    ("bye", 1, SAME, 0.0, True, 0),  # a short job's last rank comes late
    ("bye", 1, SAME, 100.0, False, 0),  # so late that it is the next job's
    ("bye", 1, {"world_size": 4}, 0.0, False, 0),
    ("bye", 1, {"provisional": True}, 0.0, False, 0),
    ("gone", 0, AGAIN, 0.0, True, 1),  # an elastic restart, after the ends of all were noticed
    ("gone", 1, AGAIN, 0.0, True, 0),
    ("gone", 0, {**AGAIN, "world_size": 1}, 0.0, True, 1),
    ("bye", 0, {"helper": "DataLoader0"}, 0.0, True, 0),  # it outlived its rank
    ("bye", 1, {"helper": "DataLoader0"}, 0.0, False, 0),
    ("bye", None, SAME, 0.0, False, 0),
]


@pytest.mark.parametrize(("ended", "rank", "origin", "after_s", "same_run", "attempt"), WHO_COMES)
def test_a_stream_joins_the_newest_run_with_its_key_if_it_can_be_of_that_job(
    stage: Stage, ended: str, rank: int | None, origin: dict[str, Any], after_s: float, same_run: bool, attempt: int
) -> None:
    first = stage.rank(0, world_size=2, restart_count=0)
    first.hello()
    if ended != "alive":
        end(first, ended)
    stage.wait(after_s)
    second = stage.rank(rank, **{"world_size": 2, "restart_count": 0, **origin})
    second.hello()
    assert (second.peer.run == first.peer.run) is same_run
    assert second.peer.info.attempt == attempt


def test_a_rank_joins_the_run_in_which_only_its_helpers_have_been(stage: Stage) -> None:
    helper = stage.rank(0, helper="DataLoader0")
    helper.hello()
    helper.bye()
    rank = stage.rank(0)
    rank.hello()
    assert rank.peer.run == helper.peer.run


def test_a_whole_elastic_restart_stays_one_run(stage: Stage) -> None:
    """Also when its first rank is done again before its second has come."""
    for rank in stage.ranks(2, restart_count=0):
        end(rank, "gone")
    first = stage.rank(0, world_size=2, restart_count=1)
    first.hello()
    first.bye()
    second = stage.rank(1, world_size=2, restart_count=1)
    second.hello()
    assert list(stage.hub.runs) == ["made-up-1"]
    assert [peer.info.attempt for peer in stage.hub.runs["made-up-1"].newest()] == [1, 1]


def test_the_end_of_a_rank_that_has_come_again_is_taken_note_of(stage: Stage) -> None:
    [first] = stage.ranks(1, restart_count=0, outbox="/tmp/box")
    first.die()
    [second] = stage.ranks(1, restart_count=1)
    assert first.peer.state == "ended"
    assert stage.took(do.Recover) == [do.Recover(["/tmp/box"])]
    assert second.peer.is_open


def test_two_unrelated_processes_with_one_rank_are_both_kept_and_marked(stage: Stage) -> None:
    first, second = stage.rank(0, run="mine", host="a"), stage.rank(0, run="mine", host="b")
    first.hello()
    second.hello()
    [say] = stage.took(do.Say)
    assert f"two processes are rank 0: {first.origin.pid} on a and {second.origin.pid} on b" in say.text
    first.log(0, 3)
    second.log(0, 4)
    ask = stage.operator()
    rows = ask(lambda number: m.Ask(number, "ranks")).data["rows"]
    assert [(row["host"], row["stored"], row["attempt"], row["duplicate"]) for row in rows] == [
        ("a", 3, 0, True),
        ("b", 4, 0, True),
    ]
    second.bye()
    [row] = ask(lambda number: m.Ask(number, "ranks")).data["rows"]
    assert row["host"] == "a"
    assert "duplicate" not in row


def test_helpers_and_launchers_are_left_out_of_rank_counts_and_answers(stage: Stage) -> None:
    ranks = stage.ranks(2)
    stage.rank(1, world_size=2, helper="DataLoader0").hello()
    stage.rank(None).hello()
    ask = stage.operator()
    rows = ask(lambda number: m.Ask(number, "ranks")).data["rows"]
    assert [row["pid"] for row in rows] == [rank.origin.pid for rank in ranks]
    [row] = ask(lambda number: m.Ask(number, "runs")).data
    assert row["ranks"] == 2
    assert "2 ranks" in stage.hub.closing_lines()[0]


def test_spawned_ranks_that_learn_their_rank_late_are_first_attempts(stage: Stage) -> None:
    """Until then each assumes that it is rank 0 of 1; the parent goes on assuming it."""
    parent = stage.rank(0, world_size=1, provisional=True)
    parent.hello()
    ranks = [stage.rank(0, world_size=1, provisional=True) for _ in range(3)]
    for rank in ranks:
        rank.hello()
    for number, rank in enumerate(ranks):
        welcome, _ = rank.hello(rank=number, world_size=3, provisional=False)
        assert isinstance(welcome, m.Welcome)
    run = stage.hub.runs["made-up-1"]
    assert [peer.stream for peer in run.newest()] == [rank.stream for rank in ranks]
    assert {peer.info.attempt for peer in run.peers.values()} == {0}
    assert stage.took(do.Say) == []


def test_a_newer_label_is_stored_and_the_same_one_is_not(stage: Stage) -> None:
    [rank] = stage.ranks(1)
    stage.took(do.PutStream)
    rank.hello(run=rank.peer.run)
    assert stage.took(do.PutStream) == []
    rank.hello(local_rank=5)
    [put] = stage.took(do.PutStream)
    assert put.info.origin.local_rank == 5
    assert put.info.origin.run == "made-up-1"


# Runs that a dead daemon left open.


def kept_run(stage: Stage, name: str, *infos: StreamInfo) -> None:
    stage.kept[name] = {info.origin.pid.to_bytes(16, "big"): Kept(info, 10) for info in infos}


def test_a_run_is_continued_after_a_restart_of_the_collector(stage: Stage) -> None:
    stage = Stage(known=[Known("old", "job", 5), Known("older", "job", 4), Known("other", "other job", 6)])
    before = StreamInfo(Origin("node1", 7, rank=0, world_size=4, key="job"), head=12)
    kept_run(stage, "old", before)
    rank = stage.rank(0, pid=7)
    welcome, _ = rank.hello(first=10)
    assert isinstance(welcome, m.Welcome)
    assert (welcome.run, welcome.watermark, welcome.stored, welcome.attempt) == ("old", 10, 10, 0)
    assert stage.took(do.OpenRun) == [do.OpenRun("old", {"key": "job", "created_ns": 5})]
    assert rank.log(10, 2) == []
    assert rank.peer.records == 12
    assert stage.hub.runs["old"].closing_line().startswith("run old: 1 rank, 12 records, 0 dropped, 0 lost")


def test_a_run_whose_processes_have_all_died_is_not_another_jobs(stage: Stage) -> None:
    """Yesterday's job at the same address: what it left is brought in, and today's begins a run of its own."""
    stage = Stage(known=[Known("old", "job", 5)])
    stage.alive[7] = False
    kept_run(stage, "old", StreamInfo(Origin("node1", 7, rank=1, world_size=4, key="job", outbox="/tmp/box"), head=12))
    rank = stage.rank(1)
    rank.hello()
    assert rank.peer.run == "made-up-1"
    assert stage.took(do.Recover) == [do.Recover(["/tmp/box"])]
    assert "rank 1 ended without a word" in stage.hub.closing_lines()[0]


def test_a_rank_of_a_run_left_open_on_another_host_is_thought_alive_for_a_while(stage: Stage) -> None:
    stage = Stage(known=[Known("old", "job", 5)])
    kept_run(stage, "old", StreamInfo(Origin("node2", 7, rank=0, world_size=4, key="job")))
    mate, rival = stage.rank(1), stage.rank(0)
    mate.hello()
    rival.hello()
    assert (mate.peer.run, rival.peer.run) == ("old", "made-up-1")


def test_a_run_that_cannot_be_opened_is_refused_and_tried_again(stage: Stage) -> None:
    stage.refuses.add("mine")
    rank = stage.rank(0, run="mine")
    assert rank.hello() == [m.Refused(rank.stream, "run", "run mine: it is another daemon's")]
    assert [say.text for say in stage.took(do.Say)] == ["run mine: it is another daemon's"]
    assert stage.hub.runs == {}
    assert stage.hub.is_idle
    stage.refuses.clear()
    assert isinstance(rank.hello()[0], m.Welcome)


def test_hellos_wait_while_a_run_is_opened(stage: Stage) -> None:
    hub, now = stage.hub, stage.now
    ranks = [stage.rank(number) for number in range(3)]
    hellos = [m.Hello(rank.stream, rank.origin, 0, 0) for rank in ranks]
    asked = [hub.handle(rank.connection, hello, now) for rank, hello in zip(ranks, hellos, strict=True)]
    assert asked == [[do.OpenRun("made-up-1", {"key": "job", "created_ns": now.ns})], [], []]
    assert hub.handle(ranks[0].connection, hellos[0], now) == []
    assert not hub.is_idle
    hub.unreachable(ranks[2].connection)
    stage.carry_out(hub.opened("made-up-1", {}, [], now))
    welcomed = [
        rank.connection for rank in ranks if any(isinstance(x, m.Welcome) for x in stage.heard(rank.connection))
    ]
    assert welcomed == [ranks[0].connection, ranks[1].connection]


# Recovery.


def test_an_outbox_is_brought_into_the_run_of_its_rank_also_beside_its_next_attempt(stage: Stage) -> None:
    [first] = stage.ranks(1, restart_count=0)
    first.log(0, 3)
    first.head = 8
    first.beat()
    end(first, "gone")
    [second] = stage.ranks(1, restart_count=1)
    first.connection = b"agent"
    [welcome] = first.hello(recovering=True)
    assert isinstance(welcome, m.Welcome)
    assert welcome.watermark == 3
    assert stage.hub.runs["made-up-1"].live == 1
    first.log(3, 5, recovered=True)
    assert [type(x) for x in first.beat()] == [m.Beat], "who brings in an outbox has no levels"
    first.bye()
    assert (first.peer.state, first.peer.lost) == ("ended", 0)
    second.bye()
    assert stage.hub.closing_lines() == ["run made-up-1: 1 rank, 8 records, 0 dropped, 0 lost"]


def test_a_process_that_never_reached_the_collector_is_recovered_into_its_jobs_run(stage: Stage) -> None:
    """Whether its job is over, or the rank has come again meanwhile."""
    [rank] = stage.ranks(1)
    dead = stage.rank(0)
    dead.hello(recovering=True)
    assert dead.peer.run == rank.peer.run
    assert stage.hub.runs["made-up-1"].live == 1
    rank.bye()
    late = stage.rank(1)
    late.hello(recovering=True)
    assert late.peer.run == rank.peer.run
    late.bye()
    assert late.peer.state == "ended"


def test_a_collector_that_is_about_to_end_takes_no_new_streams(stage: Stage) -> None:
    rank, *_ = stage.ranks(2)
    stage.hub.stop()
    late = stage.rank(5)
    assert late.hello() == [m.Refused(late.stream, "closing", "the collector is about to end")]
    assert isinstance(rank.hello()[0], m.Welcome)
    dead = stage.rank(6, pid=66)
    assert isinstance(dead.hello(recovering=True)[0], m.Welcome), "what a dead process left is still taken"
