"""A rank's side of the conversation, decision by decision; `test_conversation` has it talk to the real hub."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from msgspec import structs

from tlogs.worker.link import (
    HELLO_EVERY_S,
    MIN_PERIOD_S,
    REFUSED_EVERY_S,
    STALL_S,
    Action,
    Complain,
    Free,
    GoBack,
    Lay,
    Link,
    Send,
    State,
)
from tlogs_shared.origin import Origin
from tlogs_shared.protocol import messages as m
from tlogs_shared.protocol.clock import Moment
from tlogs_shared.protocol.lease import Lease
from tlogs_shared.protocol.secret import prove
from tlogs_shared.protocol.wire import unpack_plain
from tlogs_shared.rankset import RankSet

STREAM = b"s" * 16
SECRET = b"what only friends know"
ORIGIN = Origin(host="node1", pid=7, rank=3, key="job")
WELCOME = m.Welcome("run", 2, 10, 8, 1000, 1.0, 0.02)


@dataclass
class Box:
    """What the link reads of an outbox."""

    head: int = 20
    acknowledged: int = 5
    low_ts: int = 900
    oldest_unsent_ts: int | None = None
    dropped: dict[int, int] = field(default_factory=dict)


class Talk:
    """A link and the time, with what it last said."""

    def __init__(self, secret: bytes | None = None, **given: Any) -> None:
        numbers = itertools.count(1)
        self.now = Moment(100.0, 10**18)
        self.box = Box()
        self.nonce = b""

        def token(size: int) -> bytes:
            self.nonce = next(numbers).to_bytes(size, "big")
            return self.nonce

        self.link = Link(STREAM, ORIGIN, self.box, secret=secret, nonce=token, **given)

    def wait(self, seconds: float = 0.0) -> Sequence[Action]:
        """Let time pass; what the link does then."""
        self.now = Moment(self.now.s + seconds, self.now.ns + int(seconds * 1e9))
        return self.link.tick(self.now)

    def hear(self, message: m.Message) -> Sequence[Action]:
        """What the link does about a message."""
        return self.link.handle(message, self.now)

    def welcome(self, **changed: Any) -> Sequence[Action]:
        """A welcome to the last hello."""
        return self.hear(structs.replace(WELCOME, **{"nonce": self.nonce, **changed}))

    def begin(self) -> Talk:
        """Be welcomed."""
        self.wait()
        self.welcome()
        return self


def kinds(actions: Sequence[Action]) -> list[str]:
    return [type(action.message if isinstance(action, Send) else action).__name__ for action in actions]


def test_hello_is_said_again_until_a_welcome_comes() -> None:
    talk = Talk()
    [hello] = talk.wait()
    assert hello == Send(m.Hello(STREAM, ORIGIN, 20, 5, talk.nonce))
    assert talk.wait(0.7) == []
    assert 0.05 <= talk.link.due_s() - talk.now.s <= 0.55
    assert kinds(talk.wait(0.55)) == ["Hello"]
    assert talk.welcome() == [Free(8), GoBack(10)]
    assert (talk.link.state, talk.link.run, talk.link.attempt) == (State.LIVE, "run", 2)
    assert kinds(talk.wait()) == ["Heartbeat"]
    assert talk.wait(0.5) == []
    assert kinds(talk.wait(0.5)) == ["Heartbeat"]


def test_a_hello_that_nobody_answers_is_said_ever_more_seldom() -> None:
    """A collector that thousands of ranks greet at once must get round to them."""
    talk = Talk()
    waits = []
    for _ in range(6):
        talk.wait()
        waits.append(talk.link.due_s() - talk.now.s)
        talk.wait(waits[-1])
    for wait, nominal in zip(waits, (1, 2, 4, 8, 8, 8), strict=True):
        assert 0.75 * nominal <= wait <= 1.25 * nominal


def test_a_hello_that_the_socket_did_not_take_is_said_again_soon() -> None:
    talk = Talk()
    [hello] = talk.wait()
    assert isinstance(hello, Send)
    talk.link.unsent(hello.message, talk.now)
    talk.link.unsent(m.Bye(3), talk.now)
    assert talk.wait(0.05) == []
    assert kinds(talk.wait(0.06)) == ["Hello"]


def test_after_a_welcome_the_run_that_it_names_is_asked_for() -> None:
    """A collector that has been restarted then knows where the records belong."""
    talk = Talk().begin()
    [hello] = talk.hear(m.Stranger())
    assert isinstance(hello, Send)
    assert isinstance(hello.message, m.Hello)
    assert hello.message.origin == replace(ORIGIN, run="run")
    assert talk.hear(m.Stranger()) == [], "one hello is enough"


def test_who_brings_in_an_outbox_says_so() -> None:
    [hello] = Talk(recovering=True).wait()
    assert isinstance(hello, Send)
    assert isinstance(hello.message, m.Hello)
    assert hello.message.recovering


# The secret.


def test_the_secret_is_proved_on_both_sides() -> None:
    talk = Talk(SECRET)
    talk.wait()
    challenge = m.Challenge(b"c" * 16, prove(SECRET, "collector", talk.nonce))
    assert talk.hear(challenge) == [Send(m.Proof(prove(SECRET, "peer", b"c" * 16)))]
    assert kinds(talk.welcome(proof=prove(SECRET, "collector", talk.nonce))) == ["Free", "GoBack"]


@pytest.mark.parametrize(
    ("own", "message", "text"),
    [
        (None, m.Challenge(b"c", b"p"), "set TLOGS_SECRET_FILE"),
        (SECRET, m.Challenge(b"c", b"p"), "a different secret than this process"),
        (SECRET, WELCOME, "has not proved"),
        (None, m.Refused("access", "no"), "no"),
    ],
    ids=["no secret here", "another secret", "no proof at all", "refused"],
)
def test_a_collector_without_the_right_secret_gets_no_records(own: bytes | None, message: m.Message, text: str) -> None:
    """Anybody can listen on a port that is free."""
    talk = Talk(own)
    talk.wait()
    if isinstance(message, m.Welcome):
        message = structs.replace(message, nonce=talk.nonce)
    [complaint] = talk.hear(message)
    assert isinstance(complaint, Complain)
    assert complaint.code == "access"
    assert text in complaint.text
    assert (talk.link.state, talk.link.room) == (State.REFUSED, 0)
    assert talk.wait(REFUSED_EVERY_S - 0.1) == []
    assert kinds(talk.wait(0.2)) == ["Hello"], "it may be put right while the job runs"


def test_an_answer_to_the_last_hello_but_one_is_good_and_one_to_no_hello_is_not() -> None:
    talk = Talk()
    talk.wait()
    first = talk.nonce
    talk.wait(HELLO_EVERY_S)
    assert talk.hear(structs.replace(WELCOME, nonce=b"nobody's")) == []
    assert talk.link.state is State.WAITING
    assert kinds(talk.hear(structs.replace(WELCOME, nonce=first))) == ["Free", "GoBack"]


# Batches.


def test_the_window_bounds_what_is_on_the_way() -> None:
    talk = Talk()
    assert talk.link.room == 0
    talk.begin()
    assert talk.link.room == 1000
    talk.link.sent(12, 400, talk.now)
    talk.link.sent(15, 900, talk.now)
    assert (talk.link.room, talk.link.in_flight) == (0, 1300)
    assert talk.hear(m.Ack(12, 2000)) == [Free(12)]
    talk.box.acknowledged = 12
    assert (talk.link.room, talk.link.in_flight) == (1100, 900)
    assert talk.hear(m.Ack(12, 2000)) == talk.hear(m.Ack(11, 2000)) == []


def test_a_collector_that_misses_something_is_sent_it_again() -> None:
    talk = Talk().begin()
    talk.link.sent(15, 400, talk.now)
    assert talk.hear(m.Rewind(10)) == [GoBack(10)]
    assert talk.link.in_flight == 0


def test_a_collector_that_lost_what_it_had_acknowledged_hears_what_can_be_had() -> None:
    """It counts the rest as lost; going back to what is gone would end nowhere."""
    talk = Talk().begin()
    [hello] = talk.hear(m.Rewind(4))
    assert isinstance(hello, Send)
    assert isinstance(hello.message, m.Hello)
    assert hello.message.first == talk.box.acknowledged == 5
    assert talk.link.state is State.WAITING
    assert talk.welcome(watermark=3, stored=3) == [GoBack(5)]


def test_without_an_acknowledgement_for_long_the_link_asks_where_the_collector_stands() -> None:
    talk = Talk().begin()
    talk.wait(5.0)
    talk.link.sent(15, 400, talk.now)
    talk.link.sent(18, 400, talk.now)
    for step in range(int(STALL_S)):
        talk.hear(m.Beat(0, 0, 0, 1.0, 0.02))
        if step == 6:
            talk.hear(m.Ack(15, 1000))
        talk.wait(1.0)
    assert talk.link.state is State.LIVE, "some of it was acknowledged meanwhile"
    found: list[str] = []
    for _ in range(8):
        talk.hear(m.Beat(0, 0, 0, 1.0, 0.02))
        found += kinds(talk.wait(1.0))
    assert "Hello" in found
    assert talk.link.room == 0


def test_a_silent_collector_is_greeted_anew() -> None:
    talk = Talk().begin()
    found = [kinds(talk.wait(1.0)) for _ in range(6)]
    assert found == [["Heartbeat"]] * 5 + [["Hello"]]


def test_silence_is_measured_by_the_pace_that_the_collector_asked_for() -> None:
    talk = Talk()
    talk.wait()
    talk.welcome(period_s=20.0)
    talk.wait()
    assert [kinds(talk.wait(20.0)) for _ in range(6)] == [["Heartbeat"]] * 5 + [["Hello"]]


@pytest.mark.parametrize(
    "message", [m.Ack(9, 5), m.Rewind(9), m.Stranger(), m.News("r", 1, 2, 3, True, False), m.Bye(1)]
)
def test_what_makes_no_sense_before_a_welcome_is_passed_over(message: m.Message) -> None:
    talk = Talk()
    talk.wait()
    assert talk.hear(message) == []
    assert talk.link.state is State.WAITING


# Labels.


def test_a_label_learnt_late_is_said_until_it_is_confirmed_and_moves_no_records() -> None:
    talk = Talk().begin()
    talk.wait()
    old = talk.nonce
    talk.link.sent(15, 400, talk.now)
    [hello] = talk.link.relabel(replace(ORIGIN, rank=5), talk.now)
    assert isinstance(hello, Send)
    assert isinstance(hello.message, m.Hello)
    assert hello.message.origin == replace(ORIGIN, rank=5, run="run")
    talk.hear(structs.replace(WELCOME, nonce=old))  # this answers a hello with the old label
    assert 0 < talk.link.due_s() - talk.now.s <= 1.25 * HELLO_EVERY_S
    assert sorted({*kinds(talk.wait(1.0)), *kinds(talk.wait(0.3))}) == ["Heartbeat", "Hello"]
    assert talk.welcome() == []
    assert kinds(talk.wait(1.0)) == ["Heartbeat"]
    assert talk.link.in_flight == 400


def test_a_label_learnt_while_a_hello_is_on_its_way_is_said_after_it() -> None:
    talk = Talk()
    talk.wait()
    assert talk.link.relabel(replace(ORIGIN, rank=5), talk.now) == []
    talk.welcome()
    assert kinds(talk.wait()) == ["Heartbeat"]
    assert kinds(talk.wait(HELLO_EVERY_S)) == ["Heartbeat", "Hello"]


# Heartbeats and clocks.


@pytest.mark.parametrize(("unsent_ts", "low_ts"), [(None, 900), (700, 700), (950, 900)])
def test_a_heartbeat_promises_nothing_that_an_unsent_record_would_break(unsent_ts: int | None, low_ts: int) -> None:
    talk = Talk().begin()
    talk.box.oldest_unsent_ts, talk.box.dropped = unsent_ts, {10: 2}
    [beat] = talk.wait()
    assert beat == Send(m.Heartbeat(20, low_ts, 0, talk.now.ns, {10: 2}))


def test_a_heartbeat_carries_the_best_estimate_of_the_clock() -> None:
    talk = Talk().begin()
    talk.wait()
    sent_ns = talk.now.ns
    talk.now = Moment(talk.now.s + 0.2, sent_ns + 200)
    talk.hear(m.Beat(sent_ns, sent_ns + 1000, sent_ns + 1100, 1.0, 0.5))
    [beat] = talk.wait(1.0)
    assert isinstance(beat, Send)
    assert isinstance(beat.message, m.Heartbeat)
    assert (beat.message.offset_ns, beat.message.bound_ns) == (950, 50)
    assert talk.link.age_s == 0.5


@pytest.mark.parametrize("period_s", [0.0, -1.0])
def test_no_collector_can_make_a_rank_spin(period_s: float) -> None:
    talk = Talk().begin()
    talk.wait()
    talk.hear(m.Beat(0, 0, 0, period_s, -1.0))
    assert talk.wait(MIN_PERIOD_S * 0.9) == []
    assert kinds(talk.wait(MIN_PERIOD_S * 0.2)) == ["Heartbeat"]
    assert talk.link.age_s == 0.0


# Leases.


def settings(revision: int, *leases: Lease) -> m.Settings:
    return m.Settings(revision, [lease.as_map() for lease in leases])


LEASE = Lease(1, {"c10d": 10}, ttl_s=60.0)
ELSEWHERE = Lease(2, {"c10d": 10}, RankSet.parse("0"), ttl_s=60.0)


def test_leases_in_scope_are_laid_and_what_became_of_them_is_answered() -> None:
    talk = Talk().begin()
    assert talk.hear(settings(2, LEASE, ELSEWHERE)) == [Lay(2, [LEASE], [LEASE], [])]
    [applied] = talk.link.laid(2, {1: ["applied", ""]}, {"seams": "hooked"})
    assert isinstance(applied, Send)
    assert isinstance(applied.message, m.Applied)
    assert (applied.message.revision, applied.message.answers) == (2, {1: ("applied", "")})
    assert unpack_plain(applied.message.report) == {"seams": "hooked"}
    assert talk.hear(settings(3)) == [Lay(3, [], [], [LEASE])]
    talk.wait()
    [beat] = talk.wait(1.0)
    assert isinstance(beat, Send)
    assert isinstance(beat.message, m.Heartbeat)
    assert beat.message.revision == 3


def test_a_lease_ends_by_the_ranks_own_clock_also_while_the_collector_is_gone() -> None:
    talk = Talk().begin()
    talk.hear(settings(1, LEASE))
    talk.hear(m.Stranger())
    talk.wait(59.0)
    assert talk.link.due_s() <= talk.now.s + 1.0
    assert Lay(1, [], [], [LEASE]) in talk.wait(1.0)
    assert talk.link.laid(1, {}, {}) == [], "nobody would hear it; the collector asks again"
    talk.wait()
    talk.welcome()
    assert talk.hear(settings(1, LEASE)) == [Lay(1, [], [], [])], "what has ended stays ended"


def test_settings_that_cannot_be_read_change_nothing() -> None:
    talk = Talk().begin()
    talk.hear(settings(1, LEASE))
    [complaint] = talk.hear(m.Settings(2, [{"settings": 5}]))
    assert isinstance(complaint, Complain)
    assert complaint.code == "settings"
    assert talk.link.revision == 1
    assert talk.link.tenure.leases == [LEASE]


def test_bye_says_what_there_was_and_only_to_whom_it_matters() -> None:
    talk = Talk()
    assert talk.link.bye() == []
    talk.begin()
    talk.box.dropped = {10: 4}
    assert talk.link.bye() == [Send(m.Bye(20, {10: 4}))]
