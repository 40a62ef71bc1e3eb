"""Rounds of questions to ranks: who is missing, when a round is over, who waits for it."""

from __future__ import annotations

import pytest

from tlogs_collector.hub.peer import Peer
from tlogs_collector.hub.rounds import MAX_TIMEOUT_S, Rounds
from tlogs_shared.end import ENDED, End
from tlogs_shared.origin import Origin, StreamInfo
from tlogs_shared.protocol.clock import Moment

NOW = Moment(100.0, 10**18)


def at(seconds: float) -> Moment:
    return Moment(NOW.s + seconds, NOW.ns + int(seconds * 1e9))


def rank(number: int, run: str = "run") -> Peer:
    return Peer(bytes([number]) * 16, run, StreamInfo(Origin(host="n1", pid=number, rank=number)))


def test_a_round_is_over_once_everybody_has_answered_and_is_returned_once() -> None:
    rounds: Rounds[str] = Rounds()
    first, second = rank(0), rank(1)
    begun = rounds.begin("ask", "run", [first, second], NOW, 5.0)
    assert rounds.complete() == []
    assert rounds.answered(first, lambda _: True) == []
    assert rounds.answered(first, lambda _: True) == [], "the same answer again counts once"
    assert rounds.answered(second, lambda _: True) == [begun]
    assert rounds.answered(second, lambda _: True) == rounds.overdue(at(1000)) == []


def test_an_answer_to_something_else_counts_for_the_rounds_that_it_answers() -> None:
    rounds: Rounds[int] = Rounds()
    peer = rank(0)
    old, new = (rounds.begin(revision, "run", [peer], NOW, 5.0) for revision in (1, 2))
    assert rounds.answered(peer, lambda revision: revision <= 1) == [old]
    assert rounds.answered(peer, lambda revision: revision <= 2) == [new]


def test_a_rank_that_has_ended_is_not_waited_for() -> None:
    rounds: Rounds[str] = Rounds()
    peer = rank(0)
    begun = rounds.begin("ask", "run", [peer], NOW, 5.0)
    peer.end(End(ENDED))
    assert rounds.answered(peer, lambda _: False) == [begun]


def test_a_rank_of_another_run_does_not_answer() -> None:
    rounds: Rounds[str] = Rounds()
    rounds.begin("ask", "run", [rank(0)], NOW, 5.0)
    assert rounds.answered(rank(0, "other"), lambda _: True) == []


@pytest.mark.parametrize(("asked_s", "waited_s"), [(5.0, 5.0), (0.0, 0.0), (-1.0, 0.0), (10**9, MAX_TIMEOUT_S)])
def test_a_round_is_over_at_its_deadline_which_is_bounded(asked_s: float, waited_s: float) -> None:
    rounds: Rounds[str] = Rounds()
    begun = rounds.begin("ask", "run", [rank(0), rank(1)], NOW, asked_s)
    rounds.answered(begun.targets[0][1], lambda _: True)
    assert rounds.overdue(at(waited_s - 0.01)) == []
    assert rounds.overdue(at(waited_s)) == [begun]
    assert begun.missing == {bytes([1]) * 16}
    assert rounds.overdue(at(waited_s)) == []


def test_a_round_without_ranks_is_complete_at_once() -> None:
    rounds: Rounds[str] = Rounds()
    begun = rounds.begin("ask", "run", [], NOW, 5.0)
    assert rounds.complete() == [begun]


def test_who_asked_waits_until_the_round_is_over() -> None:
    rounds: Rounds[str] = Rounds()
    begun = rounds.begin("ask", "run", [rank(0)], NOW, 5.0)
    begun.askers.append((b"operator", 7))
    assert rounds.is_awaited_by(b"operator")
    assert not rounds.is_awaited_by(b"other")
    rounds.overdue(at(5.0))
    assert not rounds.is_awaited_by(b"operator")


def test_ranks_are_reported_as_they_were_labelled_when_they_were_asked() -> None:
    rounds: Rounds[str] = Rounds()
    peer = rank(3)
    begun = rounds.begin("ask", "run", [peer], NOW, 5.0)
    peer.info = StreamInfo(Origin(host="n1", pid=3, rank=4))
    assert [number for number, _ in begun.targets] == [3]
    assert begun.took_ms(at(0.25)) == 250.0
