"""The connections: who is a stranger, faults, and connections that nobody uses."""

from __future__ import annotations

import pytest
from tests.collector.conftest import Rank, Stage, batch, lay

from tlogs_collector.hub import actions as do
from tlogs_collector.hub import admission
from tlogs_shared.protocol import messages as m


def hello_of(rank: Rank) -> m.Hello:
    return m.Hello(rank.stream, rank.origin, 0, 0)


def kinds(messages: list[m.Message]) -> list[str]:
    return [type(message).__name__ for message in messages]


@pytest.mark.parametrize(
    "message",
    [
        m.Batch(*batch(b"s" * 16, 0, 1)),
        m.Heartbeat(0, None, None, []),
        m.Applied([]),
        m.Bye(b"s" * 16, 0),
        lay(1),
        m.Follow(None),
        m.Fetch(1, "run", "bytes", 0, 0, 10),
        m.Welcome(b"s" * 16, "run", 0, 0, 0, 0, 1.0, 1.0),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_connection_that_has_not_said_hello_is_a_stranger(stage: Stage, message: m.Message) -> None:
    """So it is after a restart of the collector: whoever is told that says hello, or asks, again."""
    assert stage.say(b"x", message) == [m.Stranger()]
    assert stage.hub.admission.connections == {}, "nothing is kept of a stranger"
    assert stage.done == []


def test_a_stream_that_has_not_said_hello_on_its_connection_is_told_so(stage: Stage) -> None:
    """The other streams of the host go on."""
    first, second = stage.rank(0), stage.rank(1)
    second.connection = first.connection
    first.hello()
    assert second.log(0, 5) == [m.Stranger(second.stream)]
    assert second.bye() == [m.Stranger(second.stream)]
    rows = [first.pulse(), second.pulse()]
    found = first.say(m.Heartbeat(stage.now.ns, None, None, rows))
    assert m.Stranger(second.stream) in found
    assert stage.took(do.Append) == []


def test_a_message_that_only_a_collector_sends_is_a_fault(stage: Stage) -> None:
    [rank] = stage.ranks(1)
    assert kinds(rank.say(m.Ack([], 0))) == ["Refused"]
    assert stage.hub.admission.rejected == 1


def test_bytes_that_are_no_message_are_told_counted_and_after_some_more_not_answered(stage: Stage) -> None:
    stage.wait(0.1)
    for _ in range(5):
        stage.carry_out(stage.hub.broken(b"x", "protocol", "no message"))
    assert stage.heard(b"x") == [m.Refused(b"", "protocol", "no message")] * 3
    assert stage.hub.admission.rejected == 3
    assert stage.operator()(lambda number: m.Ask(number, "ranks")).data == {
        "run": None,
        "rows": [],
        "refused": {"count": 3, "last_s": 0.0, "why": "not a message of tlogs, or not allowed"},
    }


def test_the_others_do_not_notice_a_hostile_host(stage: Stage) -> None:
    """One stream's frames under another host's connection are not taken, and it cannot end the other's stream."""
    good, bad = stage.ranks(2)
    assert bad.log(0, 5, stream=good.stream) == [m.Stranger(good.stream)]
    assert bad.say(m.Bye(good.stream, 0)) == [m.Stranger(good.stream)]
    for _ in range(admission.MAX_FAULTS):
        stage.carry_out(stage.hub.broken(bad.connection, "protocol", "no message"))
    stage.heard(bad.connection)
    assert bad.log(0, 5) == bad.beat() == []
    good.log(0, 5)
    assert [append.header.stream for append in stage.took(do.Append)] == [good.stream]
    stage.wait(admission.DEAF_S + 1)
    assert kinds(bad.beat()) == ["Stranger"], "some time later it may begin afresh"
    assert bad.peer.connection is None
    assert kinds(bad.hello()) == ["Welcome", "Settings"]


def test_there_is_a_bound_to_connections(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that has been silent longest has to go; if it lives it says hello again."""
    monkeypatch.setattr(admission, "MAX_CONNECTIONS", 3)
    ranks = []
    for number in range(4):
        stage.wait(0.1)
        ranks.append(stage.rank(number))
        ranks[-1].hello()
    assert list(stage.hub.admission.connections) == [rank.connection for rank in ranks[1:]]
    assert ranks[0].peer.connection is None
    assert stage.hub.admission.streams == 3


def test_connections_that_nobody_uses_any_more_are_forgotten(stage: Stage) -> None:
    """Each reconnect is a new connection; the socket never tells that the old one is gone."""
    [rank] = stage.ranks(1)
    stage.say(b"follower", m.Ask(1, "hello"))
    stage.say(b"follower", m.Follow("*"))
    stage.say(b"idler", m.Ask(1, "hello"))
    for number in range(100):
        rank.connection = b"again %d" % number
        rank.hello()
    assert len(stage.hub.admission.connections) == 103
    for _ in range(14):
        rank.beat()
        stage.wait(5.0)
    assert set(stage.hub.admission.connections) == {rank.connection, b"follower"}
    assert stage.say(b"idler", m.Ask(2, "runs")) != [m.Stranger()]


def test_who_waits_for_answers_is_not_forgotten(stage: Stage) -> None:
    [rank] = stage.ranks(1)
    stage.say(b"patient", m.Ask(1, "hello"))
    stage.say(b"patient", lay(2, timeout_s=90.0))
    for _ in range(17):
        rank.beat()
        stage.wait(5.0)
    assert b"patient" in stage.hub.admission.connections
    rank.beat()
    stage.wait(6.0)
    assert kinds(stage.heard(b"patient")) == ["Report"]


def test_a_connection_carries_many_streams(stage: Stage) -> None:
    """A host's agent speaks for all of them: one heartbeat, one acknowledgement, one sending of the settings."""
    ranks = [stage.rank(number, world_size=3) for number in range(3)]
    for rank in ranks:
        rank.connection = b"host"
        rank.hello()
    assert stage.hub.admission.streams == 3
    for rank in ranks:
        rank.log(0, 5)
    run = next(iter(stage.hub.runs))
    stage.carry_out(stage.hub.stored({(run, rank.stream): 5 for rank in ranks}))
    assert stage.heard(b"host") == [m.Ack([(rank.stream, 5) for rank in ranks], stage.hub.pacing.window())]
    found = stage.say(b"host", m.Heartbeat(stage.now.ns, None, None, [rank.pulse() for rank in ranks]))
    assert kinds(found) == ["Beat", "Settings"], "nobody has answered the settings yet"
    stage.operator()(lay)
    assert kinds(stage.heard(b"host")) == ["Settings"]


def test_a_stream_uses_the_connection_of_its_last_hello(stage: Stage) -> None:
    rank = stage.rank(0)
    rank.hello()
    before = rank.connection
    rank.connection = b"another"
    rank.hello()
    assert rank.peer.connection == b"another"
    assert stage.hub.admission.connections[before].peers == {}
    assert stage.hub.admission.streams == 1


def test_a_welcome_names_this_life_of_the_collector(stage: Stage) -> None:
    """Whoever meant another one ends the conversation."""
    [welcome, _] = stage.rank().hello()
    assert isinstance(welcome, m.Welcome)
    assert welcome.instance == "this life"
    assert stage.say(b"op", m.Ask(1, "hello")) == [m.Report(1, "", {"instance": "this life"})]
