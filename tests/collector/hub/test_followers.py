"""What followers are told, and that nobody is told the same twice."""

from __future__ import annotations

from tests.collector.conftest import Stage

from tlogs_collector.hub import actions as do
from tlogs_shared.end import End
from tlogs_shared.protocol import messages as m


def follow(stage: Stage, run: str | None, name: bytes = b"follower") -> None:
    stage.say(name, m.Ask(0, "hello"))
    stage.say(name, m.Follow(run))


def told(stage: Stage) -> list[tuple[bytes, str, bool]]:
    return [(tell.connection, tell.run, tell.live) for tell in stage.took(do.Tell)]


def test_a_follower_is_told_what_is_new_and_nothing_twice(stage: Stage) -> None:
    [rank] = stage.ranks(1)
    follow(stage, None)
    stage.wait(0.1)
    assert told(stage) == [(b"follower", "made-up-1", True)]
    stage.wait(0.1)
    assert told(stage) == []
    rank.log(0, 3)
    stage.wait(0.1)
    assert told(stage) == [(b"follower", "made-up-1", True)]
    rank.beat(low_ts=stage.now.ns)
    stage.wait(0.1)
    rank.bye()
    stage.wait(0.1)
    assert [live for _, _, live in told(stage)] == [True, False]


def test_what_is_brought_in_after_a_run_is_over_is_news(stage: Stage) -> None:
    [rank] = stage.ranks(1)
    follow(stage, None)
    rank.bye()
    stage.wait(0.1)
    assert [live for _, _, live in told(stage)] == [False]
    stage.wait(1.0)
    assert told(stage) == []
    rank.hello(recovering=True)
    rank.log(0, 3, recovered=True)
    stage.wait(0.1)
    assert [live for _, _, live in told(stage)] == [False]


def test_a_run_that_may_be_started_again_is_followed_on(stage: Stage) -> None:
    """Nothing older than now is still to come, but what comes then is in its order again."""
    [rank] = stage.ranks(1, restart_count=0, max_restarts=3)
    follow(stage, None)
    rank.bye(end=End("failed", code=1))
    stage.wait(0.1)
    [tell] = stage.took(do.Tell)
    assert (tell.live, tell.horizon_ns) == (True, 10**18)
    [again] = stage.ranks(1, restart_count=1, max_restarts=3)
    again.beat(low_ts=10**18 + 5)
    stage.wait(0.3)
    [tell] = stage.took(do.Tell)
    assert (tell.live, tell.horizon_ns) == (True, 10**18 + 5)


def test_a_late_rank_does_not_hold_the_others_records_back(stage: Stage) -> None:
    late, live = stage.ranks(2)
    follow(stage, None)
    late.beat(low_ts=100)
    live.beat(low_ts=500)
    stage.wait(0.1)
    assert stage.took(do.Tell)[-1].horizon_ns == 100
    stage.wait(3.5)
    live.beat(low_ts=700)
    stage.wait(0.1)
    assert stage.took(do.Tell)[-1].horizon_ns == 700


def test_who_follows_everything_is_told_of_every_run_and_the_newest_is_followed_otherwise(stage: Stage) -> None:
    for name in ["one", "two"]:
        stage.rank(0, run=name).hello()
        stage.wait(0.1)
    follow(stage, "*", b"all")
    follow(stage, None, b"newest")
    follow(stage, "one", b"one")
    follow(stage, "none such", b"none")
    stage.wait(0.1)
    found = {(connection, run) for connection, run, _ in told(stage)}
    assert found == {(b"all", "one"), (b"all", "two"), (b"newest", "two"), (b"one", "one")}
    assert all(stage.hub.questions.is_waiting(name) for name in (b"all", b"none"))
    assert not stage.hub.questions.is_waiting(b"stranger")


def test_a_run_that_is_not_open_yet_is_no_news(stage: Stage) -> None:
    rank = stage.rank()
    follow(stage, "*")
    stage.hub.handle(rank.connection, m.Hello(rank.stream, rank.origin, 0, 0), stage.now)
    stage.wait(0.1)
    assert told(stage) == []


def test_a_follower_that_has_gone_is_told_nothing_more(stage: Stage) -> None:
    [rank] = stage.ranks(1)
    for name in (b"stays", b"goes"):
        follow(stage, None, name)
    stage.wait(0.1)
    stage.hub.unreachable(b"goes")
    stage.took(do.Tell)
    rank.log(0, 3)
    stage.wait(0.1)
    assert [connection for connection, _, _ in told(stage)] == [b"stays"]
    follow(stage, None, b"goes")
    stage.wait(0.1)
    assert [connection for connection, _, _ in told(stage)] == [b"goes"]
