"""Who may speak: the secret, faults, and connections that nobody uses."""

from __future__ import annotations

import pytest
from tests.collector.conftest import Rank, Stage, batch, lay

from tlogs_collector.hub import actions as do
from tlogs_collector.hub import admission
from tlogs_shared.protocol import messages as m
from tlogs_shared.protocol.secret import is_proof, prove

SECRET = b"what only friends know"


@pytest.fixture
def guarded() -> Stage:
    """A hub that asks for a secret."""
    return Stage(secret=SECRET)


def prove_to(stage: Stage, connection: bytes, hello: m.Message, secret: bytes = SECRET) -> list[m.Message]:
    """Say hello and answer the challenge with *secret*."""
    [challenge] = stage.say(connection, hello)
    assert isinstance(challenge, m.Challenge)
    return stage.say(connection, m.Proof(prove(secret, "peer", challenge.nonce)))


def hello_of(rank: Rank) -> m.Hello:
    return m.Hello(rank.stream, rank.origin, 0, 0, b"nonce")


def kinds(messages: list[m.Message]) -> list[str]:
    return [type(message).__name__ for message in messages]


def test_who_proves_the_secret_is_let_in_and_is_shown_a_proof_in_turn(guarded: Stage) -> None:
    rank = guarded.rank(3)
    [challenge] = rank.say(hello_of(rank))
    assert isinstance(challenge, m.Challenge)
    assert is_proof(SECRET, "collector", b"nonce", challenge.proof)
    welcome, settings = rank.say(m.Proof(prove(SECRET, "peer", challenge.nonce)))
    assert isinstance(welcome, m.Welcome)
    assert isinstance(settings, m.Settings)
    assert is_proof(SECRET, "collector", b"nonce", welcome.proof)
    assert kinds(rank.beat()) == ["Beat", "Settings"]
    assert guarded.hub.admission.rejected == 0


def test_an_operator_proves_the_secret_too(guarded: Stage) -> None:
    [report] = prove_to(guarded, b"op", m.Ask(7, "hello", b"n", options={"much": "to keep"}))
    assert report == m.Report(7, "", {})
    assert kinds(guarded.say(b"op", m.Ask(8, "runs"))) == ["Report"]


def test_a_wrong_secret_is_refused_and_after_three_tries_not_answered(guarded: Stage) -> None:
    rank = guarded.rank()
    assert kinds(prove_to(guarded, b"x", hello_of(rank), b"a guess")) == ["Challenge"]
    assert kinds(guarded.say(b"x", m.Proof(b""))) == ["Challenge"]
    [refused] = guarded.say(b"x", m.Proof(b"\0" * 32))
    assert isinstance(refused, m.Refused)
    assert refused.code == "access"
    assert [say.text for say in guarded.took(do.Say)] == [
        "not listening to a connection any more: the secret is wrong; give the one that the collector was given"
    ]
    assert guarded.say(b"x", hello_of(rank)) == []
    assert guarded.hub.admission.rejected == 3
    assert guarded.hub.runs == {}


def test_the_challenge_of_a_connection_stays_the_same(guarded: Stage) -> None:
    """Hellos that cross, and a hello that was forgotten while it was on its way, must not make a good proof wrong."""
    rank = guarded.rank()
    first, second = rank.say(hello_of(rank)), rank.say(hello_of(rank))
    assert first == second
    guarded.hub.unreachable(rank.connection)
    assert rank.say(hello_of(rank)) == first
    assert guarded.say(b"another", hello_of(rank)) != first


def test_a_recorded_proof_opens_no_other_connection(guarded: Stage) -> None:
    rank = guarded.rank()
    [challenge] = rank.say(hello_of(rank))
    assert isinstance(challenge, m.Challenge)
    proof = m.Proof(prove(SECRET, "peer", challenge.nonce))
    guarded.say(b"thief", hello_of(rank))
    assert kinds(guarded.say(b"thief", proof)) == ["Challenge"]
    assert not guarded.hub.admission.connections[b"thief"].admitted


@pytest.mark.parametrize(
    "message",
    [
        m.Batch(*batch(b"s" * 16, 0, 1)),
        m.Heartbeat(0, 0, 0, 0),
        m.Applied(0, {}, b""),
        m.Bye(0),
        lay(1),
        m.Follow(None),
        m.Fetch(1, "run", "bytes", 0, 0, 10),
        m.Welcome("run", 0, 0, 0, 0, 1.0, 1.0),
    ],
    ids=lambda message: type(message).__name__,
)
def test_who_has_not_said_hello_or_proved_nothing_is_a_stranger(guarded: Stage, message: m.Message) -> None:
    assert guarded.say(b"x", message) == [m.Stranger()]
    assert guarded.hub.admission.connections == {}, "nothing is kept of a stranger"
    guarded.say(b"x", hello_of(guarded.rank()))
    assert guarded.say(b"x", message) == [m.Stranger()]
    assert guarded.done == []


def test_a_proof_that_nobody_asked_for_is_passed_over(guarded: Stage, stage: Stage) -> None:
    assert guarded.say(b"x", m.Proof(b"x")) == [m.Stranger()]
    rank = stage.rank()
    rank.hello()
    assert rank.say(m.Proof(b"x")) == []


def test_bytes_that_are_no_message_are_told_counted_and_after_some_more_not_answered(stage: Stage) -> None:
    for _ in range(5):
        stage.carry_out(stage.hub.broken(b"x", "protocol", "no message"))
    assert stage.heard(b"x") == [m.Refused("protocol", "no message")] * 3
    assert stage.hub.admission.rejected == 3
    assert stage.operator()(lambda number: m.Ask(number, "ranks")).data == {"run": None, "rows": [], "rejected": 3}


def test_the_others_do_not_notice_a_hostile_rank(stage: Stage) -> None:
    """Recorded frames of one stream under another's name: refused, and after some more its own are not taken either."""
    good, bad = stage.ranks(2)
    for _ in range(3):
        assert kinds(bad.log(0, 5, stream=good.stream)) == ["Refused"]
    assert bad.log(0, 5) == bad.beat() == []
    good.log(0, 5)
    assert [append.header.stream for append in stage.took(do.Append)] == [good.stream]
    stage.wait(admission.PROOF_S + 1)
    assert kinds(bad.beat()) == ["Stranger"], "some time later it may begin afresh"
    assert bad.peer.connection is None
    assert kinds(bad.hello()) == ["Welcome", "Settings"]


def test_connections_that_prove_nothing_are_forgotten_and_counted(guarded: Stage) -> None:
    for number in range(1000):
        guarded.say(b"half-open %d" % number, hello_of(guarded.rank(number)))
    guarded.wait(admission.PROOF_S - 1)
    assert len(guarded.hub.admission.connections) == 1000
    guarded.wait(6.0)
    assert len(guarded.hub.admission.connections) == 0
    assert guarded.hub.admission.rejected == 1000


def test_there_is_a_bound_to_connections_that_prove_nothing(guarded: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_HALF_OPEN", 3)
    inside = guarded.rank(0)
    prove_to(guarded, inside.connection, hello_of(inside))
    hello = hello_of(guarded.rank(1))
    for number in range(5):
        guarded.say(b"%d" % number, hello)
    assert list(guarded.hub.admission.connections) == [inside.connection, b"2", b"3", b"4"]
    assert guarded.hub.admission.rejected == 2


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


def test_a_connection_may_say_two_streams_one_after_the_other(stage: Stage) -> None:
    """The former one is then not reached over it any more."""
    first, second = stage.rank(0), stage.rank(1)
    first.hello()
    second.connection = first.connection
    second.hello()
    assert first.peer.connection is None
    assert second.peer.connection == second.connection


def test_without_a_secret_everybody_is_let_in(stage: Stage) -> None:
    rank = stage.rank()
    [welcome, _] = rank.hello()
    assert isinstance(welcome, m.Welcome)
    assert (welcome.nonce, welcome.proof) == (b"nonce", b"")
