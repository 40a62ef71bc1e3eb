"""One stream's numbers, life and clock, as the collector keeps them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlogs_collector.hub.peer import Peer, Verdict
from tlogs_shared.end import ENDED, FAILED, FINISHED, KILLED, SILENT, End
from tlogs_shared.origin import Origin, StreamInfo
from tlogs_shared.protocol.messages import Pulse
from tlogs_shared.storage.batch import Header

STREAM = b"s" * 16
S = 10**9


def new_peer(watermark: int = 0, **origin: Any) -> Peer:
    given = {"host": "n1", "pid": 7, "rank": 0, **origin}
    return Peer(STREAM, "run", StreamInfo(Origin(**given)), watermark, watermark)


def header(first: int, end: int, **changed: Any) -> Header:
    return Header(STREAM, first=first, count=end - first, **changed)


def pulse(head: int, low_ts: int = 0, revision: int = 0, dropped: dict[int, int] | None = None) -> Pulse:
    return Pulse(STREAM, head, low_ts, revision, dropped or {}, None)


@pytest.mark.parametrize(
    ("first", "end", "verdict"),
    [
        (10, 15, Verdict.TAKE),
        (5, 10, Verdict.HAVE),
        (10, 10, Verdict.HAVE),
        (0, 3, Verdict.HAVE),
        (11, 15, Verdict.REWIND),
        (8, 12, Verdict.REWIND),
        (12, 12, Verdict.REWIND),
    ],
)
def test_a_batch_is_taken_only_where_it_continues_the_stream(first: int, end: int, verdict: Verdict) -> None:
    peer = new_peer(10)
    assert peer.judge(header(first, end)) is verdict
    assert peer.watermark == (15 if verdict is Verdict.TAKE else 10)


def test_a_sender_is_told_once_to_go_back() -> None:
    """What it had sent meanwhile is passed over in silence, until it is where it should be."""
    peer = new_peer(10)
    verdicts = [peer.judge(header(*numbers)) for numbers in [(20, 25), (25, 30), (10, 20), (30, 35)]]
    assert verdicts == [Verdict.REWIND, Verdict.IGNORE, Verdict.TAKE, Verdict.REWIND]


def test_a_batch_that_could_not_be_stored_is_taken_again() -> None:
    peer = new_peer()
    peer.judge(header(0, 5))
    peer.judge(header(5, 8))
    peer.untake(header(5, 8))
    assert (peer.watermark, peer.records, peer.lost) == (5, 5, 3)
    assert peer.judge(header(8, 9)) is Verdict.IGNORE  # was told by Rewind when the store took batches again
    assert peer.judge(header(5, 8)) is Verdict.TAKE
    peer.untake(header(9, 12))  # was never taken
    assert (peer.watermark, peer.records) == (8, 8)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 12))))
def test_whatever_comes_each_number_is_taken_once_and_in_order(batches: list[tuple[int, int]]) -> None:
    peer = new_peer()
    taken: list[int] = []
    for first, count in batches:
        if peer.judge(header(first, first + count)) is Verdict.TAKE:
            taken += range(first, first + count)
    assert taken == list(range(peer.watermark))
    assert peer.records == len(taken)
    assert peer.lost == 0


def test_numbers_that_cannot_be_had_any_more_are_lost() -> None:
    peer = new_peer(10)
    peer.resume(first=14)
    assert (peer.lost, peer.info.lost) == (4, 0)  # nothing behind them is stored: a restart would find them again
    peer.judge(header(14, 20))
    assert (peer.lost, peer.info.lost, peer.watermark, peer.records) == (4, 4, 20, 6)
    peer.resume(first=20)
    assert peer.lost == 4


def test_a_gap_at_the_end_of_a_stream_counts_when_the_stream_ends() -> None:
    peer = new_peer(10)
    peer.resume(first=14)
    peer.end(End(FINISHED))
    assert (peer.lost, peer.info.lost) == (4, 4)


def test_a_store_that_has_less_than_was_thought_sets_the_stream_back() -> None:
    peer = new_peer(10)
    peer.resume(first=14)
    peer.judge(header(20, 21))
    peer.go_back(8, 6)
    assert (peer.watermark, peer.stored, peer.records, peer.info.lost) == (8, 8, 6, 0)
    assert peer.judge(header(20, 21)) is Verdict.REWIND
    peer.resume(first=14)
    assert peer.lost == 14 - 8


def test_what_was_heard_of_and_never_came_is_lost() -> None:
    peer = new_peer()
    peer.judge(header(0, 5))
    peer.beat(pulse(9), None)
    peer.end(End(ENDED))
    assert (peer.lost, peer.is_open) == (4, False)


def test_a_heartbeat_is_worth_storing_only_where_something_new_was_dropped() -> None:
    peer = new_peer()
    assert not peer.beat(pulse(9, 100, 3), None)
    assert peer.beat(pulse(9, 90, 3, {10: 2}), None)
    assert not peer.beat(pulse(9, 90, 3, {10: 2}), None)
    assert (peer.low_ts, peer.revision, peer.dropped) == (100, 3, 2)


@pytest.mark.parametrize(
    ("offset", "bound", "exchanges", "stored"),
    [
        (5 * S, 500_000, 1, (5 * S, 500_000)),
        (100_000, 500_000, 1, (None, 500_000)),  # smaller than its error
        (5 * S, 50_000_000, 4, (None, None)),
        (5 * S, 50_000_000, 5, (5 * S, 50_000_000)),
    ],
)
def test_a_clock_is_corrected_once_it_is_known_well_enough(
    offset: int, bound: int, exchanges: int, stored: tuple[int | None, int | None]
) -> None:
    peer = new_peer()
    changed = [peer.beat(pulse(0), (offset, bound)) for _ in range(exchanges)]
    assert (peer.info.offset_ns, peer.info.bound_ns) == stored
    assert sum(changed) == (stored[1] is not None)
    peer.beat(pulse(0), (9 * S, 1))
    assert stored[1] is None or peer.info.offset_ns == stored[0], "fixed once for two reads to agree"


def test_a_clock_on_the_collectors_own_host_is_never_corrected() -> None:
    peer = new_peer()
    assert not peer.beat(pulse(0), None)
    assert peer.info.offset_ns is None


@pytest.mark.parametrize("records", [0, 3])
@pytest.mark.parametrize(
    ("end", "state"),
    [
        (None, None),
        (End(FINISHED), "finished"),
        (End(FAILED, code=3), "failed"),
        (End(KILLED, signal="SIGKILL"), "killed"),
        (End(ENDED), "ended"),
        (End(SILENT), "silent"),
    ],
)
def test_the_state_that_is_shown(end: End | None, state: str | None, records: int) -> None:
    peer = new_peer()
    peer.info, peer.records = replace(peer.info, end=end), records
    assert peer.state == (state or ("running" if records else "starting"))


@pytest.mark.parametrize(("silent_s", "late"), [(0.0, False), (2.9, False), (3.1, True)])
def test_heartbeats_that_are_missing_make_a_stream_late(silent_s: float, late: bool) -> None:
    peer = new_peer()
    peer.heard_s = 100.0
    assert peer.is_late(100.0 + silent_s, 0.1) is late


@pytest.mark.parametrize(
    ("origin", "is_rank"),
    [({}, True), ({"helper": "DataLoader0"}, False), ({"rank": None}, False), ({"provisional": True}, True)],
)
def test_helpers_and_launchers_are_no_ranks(origin: dict[str, Any], is_rank: bool) -> None:
    assert new_peer(**origin).is_rank is is_rank
