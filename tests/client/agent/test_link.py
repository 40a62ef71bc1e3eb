"""The agent's side of the conversation, decision by decision; `test_conversation` has it talk to the real hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import pytest

from tlogs.agent import link as to
from tlogs.agent.sending import State
from tlogs_shared.end import End
from tlogs_shared.origin import Origin
from tlogs_shared.protocol import messages as m
from tlogs_shared.protocol.clock import Moment

A, B = b"a" * 16, b"b" * 16
ORIGIN = Origin(host="node1", pid=7, rank=3, key="job")
T = TypeVar("T")


@dataclass
class Box:
    """What the link reads of an outbox."""

    head: int = 20
    acknowledged: int = 5
    low_ts: int = 900
    oldest_unsent_ts: int | None = None
    dropped: dict[int, int] = field(default_factory=dict)

    def vital(self) -> m.Vital | None:
        return m.Vital("running", 3, 0.0)


class Talk:
    """A link with two streams, and the time."""

    def __init__(self, instance: str = "") -> None:
        self.now = Moment(100.0, 10**18)
        self.link = to.Link(lambda: 0.5)
        self.boxes = {A: Box(), B: Box()}
        for stream, box in self.boxes.items():
            self.link.add(stream, ORIGIN, box, self.now)
        self.link.connected(instance, self.now)

    def wait(self, seconds: float = 0.0) -> Sequence[to.Action]:
        self.now = Moment(self.now.s + seconds, self.now.ns + int(seconds * 1e9))
        return self.link.tick(self.now)

    def hear(self, message: Any) -> Sequence[to.Action]:
        return self.link.handle(message, self.now)

    def live(self) -> Talk:
        self.wait()
        for stream in (A, B):
            self.hear(welcome(stream))
        return self


def welcome(stream: bytes, **changed: Any) -> m.Welcome:
    given = {"watermark": 10, "stored": 5, "window": 1000, "period_s": 1.0, "age_s": 0.02, "instance": "this"}
    return m.Welcome(stream=stream, run="run", attempt=2, **{**given, **changed})


def said(actions: Sequence[to.Action], kind: type[T]) -> list[T]:
    return [action.message for action in actions if isinstance(action, to.Send) and isinstance(action.message, kind)]


def test_each_stream_says_hello_until_it_is_welcome() -> None:
    talk = Talk()
    assert [hello.stream for hello in said(talk.wait(), m.Hello)] == [A, B]
    assert said(talk.wait(0.5), m.Hello) == []
    talk.hear(welcome(A))
    [hello] = said(talk.wait(2.0), m.Hello)
    assert (hello.stream, hello.head, hello.first) == (B, 20, 5)


def test_a_welcome_says_where_to_go_on_and_the_worker_is_told() -> None:
    talk = Talk()
    actions = talk.hear(welcome(A, stored=8))
    assert actions == [to.Tell(A), to.Free(A, 8), to.Rewound(A, 10)]
    assert talk.link.streams[A].origin == replace(ORIGIN, run="run")
    assert talk.hear(welcome(A)) == []


def test_nothing_is_believed_before_the_instance_that_was_dialled_has_answered() -> None:
    talk = Talk("this")
    for message in (m.Ack([(A, 20)], 1), m.Rewind(A, 0), m.Settings("run", 1, []), m.Stranger()):
        assert talk.hear(message) == []
    [action] = talk.hear(welcome(A, instance="another"))
    assert isinstance(action, to.Redial)
    assert talk.link.streams[A].state is State.WAITING
    assert talk.hear(welcome(A))
    assert talk.link.has_answered


def test_windows_bound_what_is_in_flight_of_a_stream_and_of_all() -> None:
    talk = Talk().live()
    talk.link.sent(A, 12, 900, talk.now)
    assert (talk.link.room(A), talk.link.room(B)) == (100, 1000)
    talk.link.sent(A, 13, 900, talk.now)
    assert talk.link.room(A) == 0
    talk.hear(m.Ack([(A, 12)], 2000))
    assert talk.link.room(A) == 1100
    talk.link.sent(B, 20, to.MAX_IN_FLIGHT, talk.now)
    assert talk.link.room(A) == 0
    talk.link.drop(B)
    assert talk.link.room(A) == 1100


def test_a_heartbeat_has_a_row_for_each_stream() -> None:
    talk = Talk().live()
    talk.boxes[B].oldest_unsent_ts = 700
    talk.boxes[B].dropped = {10: 3}
    [beat] = said(talk.wait(1.0), m.Heartbeat)
    vital = m.Vital("running", 3, 0.0)
    assert list(beat.rows) == [m.Pulse(A, 20, 900, 0, {}, vital), m.Pulse(B, 20, 700, 0, {10: 3}, vital)]


def test_many_rows_are_several_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(to, "MAX_ROWS", 1)
    assert [len(beat.rows) for beat in said(Talk().live().wait(1.0), m.Heartbeat)] == [1, 1]


def test_a_silent_collector_is_dialled_anew() -> None:
    talk = Talk().live()
    talk.link.sent(A, 12, 900, talk.now)
    *told, redial = talk.wait(10.0)
    assert told == [to.Tell(A), to.Tell(B)]
    assert isinstance(redial, to.Redial)
    assert talk.link.in_flight == 0


def test_what_is_not_acknowledged_for_long_is_asked_about() -> None:
    talk = Talk().live()
    talk.link.sent(A, 12, 900, talk.now)
    for _ in range(12):
        talk.hear(m.Beat(0, 0, 0, 1.0, 0.02))
        actions = talk.wait(1.0)
        if said(actions, m.Hello):
            break
    [hello] = said(actions, m.Hello)
    assert hello.stream == A
    assert talk.link.streams[B].state is State.LIVE


def test_a_collector_that_lost_what_it_had_acknowledged_is_told_what_there_is() -> None:
    talk = Talk().live()
    assert talk.hear(m.Rewind(A, 7)) == [to.Rewound(A, 7)]
    assert talk.hear(m.Rewind(A, 3)) == [to.Tell(A)]
    assert [hello.first for hello in said(talk.wait(), m.Hello)] == [5]


def test_a_bye_comes_last_and_is_said_until_it_is_answered() -> None:
    talk = Talk().live()
    end = End("killed", signal="SIGKILL", ended_ns=7)
    talk.link.end(A, end)
    assert said(talk.wait(), m.Bye) == []
    talk.boxes[A].acknowledged = 20
    assert said(talk.wait(), m.Bye) == [m.Bye(A, 20, {}, end)]
    assert said(talk.wait(0.1), m.Bye) == []
    assert len(said(talk.wait(1.0), m.Bye)) == 1
    assert talk.hear(m.Ack([(A, 20)], 1)) == [to.Done(A)]


def test_equal_answers_share_a_row() -> None:
    talk = Talk().live()
    for stream in (A, B):
        talk.link.applied(stream, 3, {3: ("applied", "")}, b"report")
    [applied] = said(talk.wait(), m.Applied)
    assert list(applied.rows) == [m.AppliedRow([A, B], 3, {3: ("applied", "")}, b"report")]
    talk.link.applied(A, 4, {4: ("ignored", "why")}, b"report")
    [applied] = said(talk.wait(), m.Applied)
    assert [row.streams for row in applied.rows] == [[A]]


def test_settings_go_to_the_workers_of_their_run_and_an_answer_that_was_lost_is_said_again() -> None:
    talk = Talk().live()
    settings = m.Settings("run", 3, [{"revision": 3, "created_ns": 1}])
    assert talk.hear(settings) == [to.Inform([A, B], 3, settings.leases)]
    assert talk.hear(m.Settings("other", 1, [])) == []
    talk.link.applied(A, 3, {3: ("applied", "")}, b"")
    talk.wait()
    assert talk.hear(settings) == [to.Inform([B], 3, settings.leases)]
    [applied] = said(talk.wait(), m.Applied)
    assert [row.streams for row in applied.rows] == [[A]]
    # A collector that lost its journal counts from the start again.
    newer = m.Settings("run", 3, [{"revision": 3, "created_ns": 2}])
    assert talk.hear(newer) == [to.Inform([A, B], 3, newer.leases)]
    assert talk.link.settings_of(A) == newer


def test_a_refusal_is_told_to_those_it_is_about() -> None:
    talk = Talk().live()
    assert talk.hear(m.Refused(A, "run", "no")) == [to.Tell(A), to.Complain(A, "run", "no")]
    assert [one.state for one in talk.link.streams.values()] == [State.REFUSED, State.LIVE]
    *told, complaint = talk.hear(m.Refused(b"", "protocol", "no"))
    assert complaint == to.Complain(None, "protocol", "no")
    assert told == [to.Tell(A), to.Tell(B)]
    assert said(talk.wait(1.0), m.Hello) == []
    assert len(said(talk.wait(5.0), m.Hello)) == 2


def test_a_collector_that_is_about_to_end_takes_what_a_dead_process_left() -> None:
    talk = Talk()
    talk.wait()
    talk.link.died(A)
    assert talk.hear(m.Refused(A, "closing", "the collector is about to end")) == []
    [hello] = said(talk.wait(), m.Hello)
    assert (hello.stream, hello.recovering) == (A, True)
    assert to.Complain(B, "closing", "so") in talk.hear(m.Refused(B, "closing", "so"))


def test_a_stranger_says_hello_again() -> None:
    talk = Talk().live()
    assert talk.hear(m.Stranger(A)) == [to.Tell(A)]
    assert [hello.stream for hello in said(talk.wait(), m.Hello)] == [A]
    assert talk.hear(m.Stranger()) == [to.Tell(B)]


def test_a_label_that_is_learnt_late_is_said_until_a_welcome_answers() -> None:
    talk = Talk().live()
    talk.link.relabel(A, replace(ORIGIN, rank=9), talk.now)
    [hello] = said(talk.wait(), m.Hello)
    assert (hello.origin.rank, hello.origin.run) == (9, "run")
    assert len(said(talk.wait(2.0), m.Hello)) == 1
    talk.hear(welcome(A))
    assert said(talk.wait(2.0), m.Hello) == []


def test_messages_about_streams_that_are_not_ours_are_skipped() -> None:
    talk = Talk().live()
    other = b"o" * 16
    for message in (
        welcome(other),
        m.Ack([(other, 3)], 1),
        m.Rewind(other, 3),
        m.Stranger(other),
        m.Fetch(1, "", "", 0, 0, 0),
    ):
        assert talk.hear(message) == []
