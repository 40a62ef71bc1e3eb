"""Streams that speak: batches, acknowledgements, a store that fails, and who is late, gone, back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.collector.conftest import Kept, Rank, Stage, batch, lay

from tlogs_collector.hub import actions as do
from tlogs_shared.end import ENDED, FAILED, FINISHED, KILLED, End
from tlogs_shared.protocol import messages as m
from tlogs_shared.rankset import RankSet


def appended(stage: Stage) -> list[tuple[int, int]]:
    """First number and count of the batches that were taken."""
    return [(append.header.first, append.header.count) for append in stage.took(do.Append)]


def state_of(rank: Rank) -> str:
    """Its state, and "late" behind it where heartbeats are missing."""
    peer = rank.peer
    return f"{peer.state}, late" if peer.is_open and peer.is_late(rank.stage.now.s, 1.0) else peer.state


# Batches.


def test_batches_are_taken_in_order_and_acknowledged_when_the_store_says_so(stage: Stage) -> None:
    [rank] = stage.ranks(1)
    assert rank.log(0, 5) == rank.log(5, 3) == []
    assert appended(stage) == [(0, 5), (5, 3)]
    stage.carry_out(stage.hub.stored({("made-up-1", rank.stream): 8}))
    assert stage.heard(rank.connection) == [m.Ack([(rank.stream, 8)], stage.hub.pacing.window())]
    stage.carry_out(stage.hub.stored({("made-up-1", rank.stream): 5}))
    assert stage.heard(rank.connection) == [m.Ack([(rank.stream, 8)], stage.hub.pacing.window())], (
        "what is safe stays safe"
    )
    assert rank.log(0, 5) == [m.Ack([(rank.stream, 8)], stage.hub.pacing.window())]
    assert rank.log(9, 2) == [m.Rewind(rank.stream, 8)]
    assert rank.log(11, 2) == []
    assert appended(stage) == []


def test_a_repeated_hello_says_where_to_go_on(stage: Stage) -> None:
    [rank] = stage.ranks(1)
    rank.log(0, 5)
    stage.carry_out(stage.hub.stored({("made-up-1", rank.stream): 3}))
    rank.connection = b"again"
    welcome, _ = rank.hello()
    assert isinstance(welcome, m.Welcome)
    assert (welcome.watermark, welcome.stored) == (5, 3)


def test_acknowledgements_go_nowhere_while_nobody_is_connected(stage: Stage) -> None:
    [rank] = stage.ranks(1)
    rank.log(0, 5)
    stage.hub.unreachable(rank.connection)
    stage.hub.unreachable(rank.connection)
    assert stage.hub.stored({("made-up-1", rank.stream): 5}) == []
    assert rank.peer.stored == 5


def test_numbers_that_a_rank_can_no_longer_supply_are_counted_lost(stage: Stage) -> None:
    [rank] = stage.ranks(1)
    rank.log(0, 5)
    rank.hello(first=9)
    stage.took(do.PutStream)
    rank.log(9, 2)
    put, append = [action for action in stage.done if isinstance(action, do.PutStream | do.Append)][-2:]
    assert isinstance(put, do.PutStream)
    assert put.info.lost == 4
    assert isinstance(append, do.Append), "counted before what lies behind the gap is stored, and not after"
    rank.bye()
    assert stage.hub.closing_lines() == ["run made-up-1: 1 rank, 7 records, 0 dropped, 4 lost"]


def test_a_gap_is_not_counted_twice_when_the_collector_restarts_in_it(stage: Stage) -> None:
    [rank] = stage.ranks(1)
    rank.log(0, 5)
    rank.hello(first=9)
    again = Stage()
    again.kept["made-up-1"] = {rank.stream: Kept(rank.peer.info, 5)}
    same = replace(rank, stage=again)
    same.hello(first=9, run="made-up-1")
    same.log(9, 1)
    same.bye(10)
    assert again.hub.closing_lines() == ["run made-up-1: 1 rank, 6 records, 0 dropped, 4 lost"]


def test_a_recovered_batch_is_taken_as_any_other(stage: Stage) -> None:
    rank = stage.rank()
    rank.hello(recovering=True)
    rank.log(0, 4, recovered=True)
    [append] = stage.took(do.Append)
    assert append.header.recovered


# The store.


def test_a_full_store_takes_nothing_until_it_has_room_again(stage: Stage) -> None:
    full, other = stage.ranks(2)
    full.log(0, 5)
    header, _ = batch(full.stream, 5, 3)
    full.log(5, 3)
    stage.hub.stall("made-up-1", "no space")
    stage.carry_out(stage.hub.unstored("made-up-1", header, "no space"))
    assert full.log(8, 2) == other.log(0, 2) == []
    stage.took(do.Append)
    assert full.beat() != [], "life goes on"
    stage.carry_out(stage.hub.resume("made-up-1"))
    assert stage.heard(full.connection) == [m.Rewind(full.stream, 5)]
    assert stage.heard(other.connection) == [m.Rewind(other.stream, 0)]
    assert [say.text for say in stage.took(do.Say)] == [
        "run made-up-1: cannot store: no space; the ranks keep their records and wait",
        "run made-up-1: storing again",
    ]
    full.log(5, 3)
    other.log(0, 2)
    assert appended(stage) == [(5, 3), (0, 2)]


def test_after_a_failed_sync_everybody_goes_back_to_what_is_stored(stage: Stage) -> None:
    known, unknown = stage.ranks(2)
    known.log(0, 9)
    unknown.log(0, 4)
    stage.hub.unreachable(unknown.connection)
    stage.hub.stall("made-up-1", "sync failed")
    stage.carry_out(stage.hub.reopened("made-up-1", {known.stream: Kept(known.peer.info, 6)}))
    assert stage.heard(known.connection) == [m.Rewind(known.stream, 6)]
    assert [(rank.peer.watermark, rank.peer.stored, rank.peer.records) for rank in (known, unknown)] == [
        (6, 6, 6),
        (0, 0, 0),
    ]
    assert len(stage.took(do.PutStream)) >= 2, "the store may not even have heard of them"


# Heartbeats.


def test_a_heartbeat_is_answered_with_its_times_and_a_pace(stage: Stage) -> None:
    [rank] = stage.ranks(1)
    rank.answer(0)
    assert rank.beat() == [m.Beat(stage.now.ns, stage.now.ns, stage.now.ns, 1.0, 0.02)]
    stage.took(do.PutStream)
    rank.beat(dropped={10: 3})
    [put] = stage.took(do.PutStream)
    assert put.info.dropped == {10: 3}


def test_settings_are_sent_until_they_are_in_force_and_answered(stage: Stage) -> None:
    """A lost message, and a lost answer, end in the same place."""
    [rank] = stage.ranks(1)
    sent = [[type(message) for message in rank.beat()]]
    rank.answer(0)
    sent.append([type(message) for message in rank.beat()])
    sent.append([type(message) for message in rank.beat(revision=5)])
    assert sent == [[m.Beat, m.Settings], [m.Beat], [m.Beat, m.Settings]]


def test_a_rank_is_late_then_gone_then_back(stage: Stage) -> None:
    """On another host nothing but its silence and its connection tells."""
    [rank] = stage.ranks(1)
    stage.wait(3.5)
    assert state_of(rank) == "starting, late"
    stage.wait(7.0)
    assert state_of(rank) == "starting, late"
    assert stage.heard(rank.connection) == [m.Stranger(rank.stream)], "whoever hears that says hello"
    stage.hub.unreachable(rank.connection)  # as sending found out
    stage.wait(0.5)
    assert (state_of(rank), rank.peer.info.since_ns) == ("silent", 10**18)
    assert stage.hub.is_idle
    rank.log(0, 3)
    assert appended(stage) == [], "first it has to say hello"
    assert isinstance(rank.hello()[0], m.Welcome)
    assert state_of(rank) == "starting"
    assert stage.hub.runs["made-up-1"].live == 1
    rank.log(0, 3)
    assert (appended(stage), state_of(rank)) == ([(0, 3)], "running")


def test_a_rank_that_only_was_stopped_goes_on_as_it_was(stage: Stage) -> None:
    [rank] = stage.ranks(1)
    stage.wait(30.0)
    assert state_of(rank) == "starting, late"
    rank.beat()
    assert state_of(rank) == "starting"


def test_a_dead_process_of_this_host_is_gone_within_two_heartbeats_and_recovered(stage: Stage) -> None:
    [rank] = stage.ranks(1, outbox="/tmp/box")
    rank.die()
    stage.wait(0.9)
    assert state_of(rank) == "starting", "what it sent last may not have arrived yet"
    stage.wait(0.3)
    assert state_of(rank) == "ended"
    assert stage.took(do.Recover) == [do.Recover(["/tmp/box"])]
    end = stage.took(do.PutStream)[-1].info.end
    assert (end.how, round(end.ended_ns, -6)) == (ENDED, 10**18)
    stage.wait(30.0)
    assert stage.took(do.Recover) == []


def test_a_dead_process_whose_agent_is_connected_is_left_to_that_agent(stage: Stage) -> None:
    """It sends what is left, and says how the process ended: whoever brought the outbox in would be in its way."""
    [rank] = stage.ranks(1, outbox="/tmp/box")
    stage.alive[rank.origin.pid] = False
    stage.wait(20.0)
    assert state_of(rank) == "starting, late"
    assert stage.took(do.Recover) == []


def test_a_live_process_of_this_host_is_not_gone_while_it_is_connected(stage: Stage) -> None:
    [rank] = stage.ranks(1)
    stage.alive[rank.origin.pid] = True
    stage.wait(60.0)
    assert state_of(rank) == "starting, late"


def test_a_rank_that_says_bye_is_done(stage: Stage) -> None:
    [rank] = stage.ranks(1)
    rank.log(0, 5)
    assert rank.bye() == [m.Ack([(rank.stream, 0)], stage.hub.pacing.window())]
    assert (state_of(rank), stage.hub.is_idle) == ("finished", True)
    assert stage.took(do.PutStream)[-1].info.end == End(FINISHED, ended_ns=10**18)
    assert m.Stranger(rank.stream) in rank.beat()
    stage.wait(60.0)
    assert state_of(rank) == "finished"


@pytest.mark.parametrize("end", [End(KILLED, signal="SIGKILL", oom=True, ended_ns=7), End(FAILED, code=3), End(ENDED)])
def test_how_a_rank_ended_is_stored_with_its_bye(stage: Stage, end: End) -> None:
    [rank] = stage.ranks(1)
    rank.bye(end=end)
    assert state_of(rank) == end.how
    assert stage.took(do.PutStream)[-1].info.end == end


@pytest.mark.parametrize(
    ("before", "told", "known"),
    [
        (End(KILLED, signal="SIGKILL"), None, End(KILLED, signal="SIGKILL")),
        (End(KILLED, signal="SIGKILL"), End(ENDED), End(KILLED, signal="SIGKILL")),
        (End(ENDED, ended_ns=5), None, End(ENDED, ended_ns=5)),
        (End(ENDED, ended_ns=5), End(FAILED, code=3), End(FAILED, code=3)),
        (None, End(FAILED, code=3), End(FAILED, code=3)),
        (None, None, End(ENDED, ended_ns=10**18)),
    ],
)
def test_who_brings_in_an_outbox_adds_to_what_is_known_of_its_end(
    stage: Stage, before: End | None, told: End | None, known: End
) -> None:
    [rank] = stage.ranks(1)
    if before is not None:
        rank.bye(end=before)
    rank.connection = b"agent"
    rank.hello(recovering=True)
    rank.bye(end=told)
    assert rank.peer.info.end == known


def test_a_rank_that_leaves_before_everything_was_taken_left_the_rest_in_its_outbox(stage: Stage) -> None:
    [rank] = stage.ranks(1, outbox="/tmp/box")
    rank.log(0, 5)
    assert rank.bye(9) == [m.Ack([(rank.stream, 0)], stage.hub.pacing.window())]
    assert state_of(rank) == "running"
    rank.die()
    stage.wait(1.5)
    assert (state_of(rank), rank.peer.lost) == ("ended", 4)
    assert stage.took(do.Recover) == [do.Recover(["/tmp/box"])]


def test_whoever_speaks_is_not_late_however_long_the_hub_was_busy(stage: Stage) -> None:
    """Time passes for the hub only when all that had arrived was read: the message comes before the tick."""
    [rank] = stage.ranks(1)
    stage.now = type(stage.now)(stage.now.s + 100.0, stage.now.ns + 100 * 10**9)
    rank.beat()
    stage.wait(0.0)
    assert state_of(rank) == "starting"


def test_a_job_that_restarts_with_another_world_size_says_which_leases_name_ranks_that_it_has_not(
    stage: Stage,
) -> None:
    first = stage.ranks(4, restart_count=0)
    stage.say(b"op", m.Ask(1, "hello"))
    stage.say(b"op", lay(2, ranks=RankSet.parse("1-3")))
    stage.say(b"op", lay(3))
    for rank in first:
        rank.die()
    stage.wait(2.0)
    stage.control["made-up-1"].clear()
    stage.ranks(2, restart_count=1)
    assert stage.control["made-up-1"] == [
        {"time_ns": stage.now.ns, "event": "outside", "lease": 1, "world_size": 2, "ranks": "2-3"}
    ]
    [report] = stage.say(b"op", m.Ask(4, "levels"))
    assert isinstance(report, m.Report)
    assert [lease.get("outside") for lease in report.data["leases"]] == ["2-3", None]


@pytest.mark.parametrize("origin", [{"provisional": True}, {"world_size": None}, {"helper": "x"}])
def test_a_world_size_that_is_only_assumed_changes_nothing(stage: Stage, origin: dict[str, Any]) -> None:
    stage.ranks(4)
    stage.rank(0, **{"world_size": 1, **origin}).hello()
    assert stage.hub.runs["made-up-1"].world_size == 4


def test_the_cost_of_a_message_does_not_grow_with_the_number_of_ranks(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that a rank says makes the hub look at the others."""
    ranks = stage.ranks(50)
    stage.say(b"op", m.Ask(1, "hello"))
    stage.say(b"op", m.Change(2, None, 5.0, lease=None, ends=[]))

    class Unlooked(dict[bytes, Any]):
        def values(self) -> Any:
            raise AssertionError("looked at every stream")

    run = stage.hub.runs["made-up-1"]
    run.peers = Unlooked(run.peers)
    monkeypatch.setattr(type(run), "ranks", Unlooked.values)
    monkeypatch.setattr(type(run), "newest", Unlooked.values)
    stage.rank(50, world_size=50).hello()
    for rank in ranks:
        rank.log(0, 1)
        rank.beat()
        rank.answer(0)
        rank.hello()
        stage.carry_out(stage.hub.stored({("made-up-1", rank.stream): 1}))
        rank.bye()
