"""A run's leases over its whole life, also beyond the collector's, and its closing line."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlogs_collector.hub.peer import Peer
from tlogs_collector.hub.run import FOR_EVER_NS, Run
from tlogs_shared.end import ENDED, FINISHED, KILLED, SILENT, End
from tlogs_shared.origin import Origin, StreamInfo
from tlogs_shared.protocol.clock import Moment
from tlogs_shared.protocol.lease import Lease
from tlogs_shared.rankset import RankSet

S = 10**9
NOW = Moment(50.0, 1000 * S)


def later(seconds: float) -> Moment:
    return Moment(NOW.s + seconds, NOW.ns + int(seconds * S))


def lease(name: str = "c10d", ttl_s: float | None = 60.0, **more: Any) -> Lease:
    return Lease(0, {name: 10}, ttl_s=ttl_s, **more)


def new_run() -> Run:
    return Run("run", "job", 0)


def peer(number: int, rank: int | None = None, **info: Any) -> Peer:
    return Peer(bytes([number]) * 16, "run", StreamInfo(Origin("n1", number, rank=rank), **info))


def test_a_lease_is_sent_with_what_is_left_of_it_and_not_after_its_end() -> None:
    run = new_run()
    run.lease(lease("c10d", 60.0), NOW)
    run.lease(lease("dynamo", None), NOW)
    assert [sent["ttl_s"] for sent in run.settings(later(45.0)).leases] == [15.0, None]
    assert [sent["ttl_s"] for sent in run.settings(later(60.0)).leases] == [None]
    assert run.settings(later(60.0)).revision == 2


def test_the_end_of_a_lease_is_found_once_and_makes_no_new_revision() -> None:
    run = new_run()
    first = run.lease(lease(), NOW)
    assert run.expire(later(59.0)) == []
    assert run.expire(later(60.0)) == [first]
    assert run.expire(later(61.0)) == []
    assert (run.leases, run.revision) == ([], 1)


def test_a_newer_lease_for_the_same_takes_the_older_ones_place() -> None:
    run = new_run()
    for name in ["c10d", "dynamo", "c10d"]:
        run.lease(lease(name), NOW)
    assert [old.revision for old in run.leases] == [3, 2]


def test_leases_are_ended_all_or_some() -> None:
    run = new_run()
    first, second, third = (run.lease(lease(name), NOW) for name in ["a", "b", "c"])
    assert run.end_leases([2, 77]) == [second]
    assert run.end_leases([77]) == []
    assert run.revision == 4
    assert run.end_leases([]) == [first, third]
    assert (run.leases, run.revision) == ([], 5)


def test_a_lease_that_is_taken_back_gives_its_place_back() -> None:
    run = new_run()
    old = run.lease(lease("c10d"), NOW)
    other = run.lease(lease("dynamo"), NOW)
    run.withdraw(run.lease(lease("c10d"), NOW), old)
    assert run.leases == [old, other]
    run.withdraw(other, None)
    assert run.leases == [old]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("lease"), st.sampled_from(["a", "b", "c"]), st.sampled_from([None, 5.0, 500.0])),
        st.tuples(st.just("reset"), st.lists(st.integers(1, 8), max_size=2), st.none()),
        st.tuples(st.just("withdraw"), st.none(), st.none()),
        st.tuples(st.just("wait"), st.floats(0.0, 9.0), st.none()),
    ),
    max_size=12,
)


@given(STEPS)
def test_leases_read_back_from_the_journal_are_those_that_were_in_force(steps: list[tuple[str, Any, Any]]) -> None:
    """With what is left of their time; the journal is what the desk writes."""
    run, now, journal = new_run(), NOW, list[dict[str, Any]]()
    for what, value, ttl in steps:
        before = list(run.leases)
        match what:
            case "lease":
                new = run.lease(lease(value, ttl), now)
                journal.append({"event": "lease", "revision": new.revision, "lease": new.as_map()})
            case "reset":
                if ended := run.end_leases(value):
                    ends = [old.revision for old in ended]
                    journal.append({"event": "reset", "revision": run.revision, "ends": ends})
            case "withdraw":
                new = run.lease(lease("a", None), now)
                journal.append({"event": "lease", "revision": new.revision, "lease": new.as_map()})
                displaced = next((old for old in before if old not in run.leases), None)
                run.withdraw(new, displaced)
                line = {"event": "withdrawn", "revision": run.revision, "ends": [new.revision]}
                journal.append(line if displaced is None else {**line, "returns": displaced.revision})
            case _:
                now = Moment(now.s + value, now.ns + int(value * S))
                if ended := run.expire(now):
                    journal.append({"event": "expired", "ends": [old.revision for old in ended]})
    again = new_run()
    assert again.restore(journal) == []
    assert again.in_force(now) == run.in_force(now)
    assert again.revision == run.revision


@pytest.mark.parametrize(
    "line",
    [
        {"event": "lease"},
        {"event": "lease", "revision": 3},
        {"event": "lease", "revision": 3, "lease": {"settings": 5}},
        {"event": "reset", "revision": 3, "ends": None},
        {"event": "reset", "revision": 3, "ends": [[]]},
        {"event": "withdrawn", "revision": 3, "ends": [99]},
        {"event": "withdrawn", "revision": 3, "ends": []},
    ],
)
def test_a_line_that_cannot_be_used_costs_the_others_nothing(line: dict[str, Any]) -> None:
    run = new_run()
    good = run.lease(lease(), NOW)
    journal = [{"event": "lease", "revision": 1, "lease": good.as_map()}, line, {"event": "answers", "revision": 7}]
    again = new_run()
    [fault] = again.restore(journal)
    assert "cannot be used" in fault
    assert (again.leases, again.revision) == ([good], 7)


@pytest.mark.parametrize(
    ("ranks", "world_size", "outside"),
    [("0-7", 4, "4-7"), ("0-3", 4, ""), ("^2", 4, ""), ("all", 4, ""), ("0-7", None, ""), ("8", 4, "8")],
)
def test_ranks_that_a_lease_names_and_the_job_has_not(ranks: str, world_size: int | None, outside: str) -> None:
    run = new_run()
    run.world_size = world_size
    assert str(run.outside(lease(ranks=RankSet.parse(ranks)))) == outside


def test_nothing_older_than_the_slowest_stream_is_still_to_come() -> None:
    run = new_run()
    assert run.horizon_ns() == FOR_EVER_NS
    for number, low_ts in [(1, 70), (2, 50), (3, 60)]:
        run.add(peer(number, number))
        run.peers[bytes([number]) * 16].low_ts = low_ts
    slow = run.peers[b"\x02" * 16]
    assert (run.horizon_ns(), run.horizon_ns([slow])) == (50, 60)
    run.end(slow, End(FINISHED))
    assert run.horizon_ns() == 60


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**64 - 1))
def test_whatever_a_clock_says_the_horizon_can_be_sent(offset_ns: int, low_ts: int) -> None:
    run = new_run()
    run.add(peer(1, 0, offset_ns=offset_ns))
    run.peers[b"\x01" * 16].low_ts = low_ts
    assert 0 <= run.horizon_ns() <= FOR_EVER_NS


@pytest.mark.parametrize(
    ("peers", "line"),
    [
        ([], "run run: 0 ranks, 0 records, 0 dropped, 0 lost"),
        ([{"rank": 0, "end": End(FINISHED), "records": 1}], "run run: 1 rank, 1 record, 0 dropped, 0 lost"),
        (
            [
                {"rank": 0, "end": End(FINISHED), "head": 5, "records": 5, "dropped": {10: 2, 20: 1}},
                {"rank": 1, "end": End(SILENT), "deserted": True, "head": 7, "records": 5, "lost": 1},
                {"rank": 2, "end": End(ENDED)},
                {"rank": 3, "end": End(KILLED, signal="SIGKILL")},
                {"rank": 4},
                {"rank": None, "end": End(ENDED), "deserted": True, "records": 2},
            ],
            "run run: 5 ranks, 12 records, 3 dropped, 3 lost; rank 1 ended without a word",
        ),
    ],
)
def test_the_closing_line_is_arithmetic_over_sequence_numbers(peers: list[dict[str, Any]], line: str) -> None:
    run = new_run()
    for number, info in enumerate(peers):
        found = peer(number, **{name: value for name, value in info.items() if name not in ("records", "deserted")})
        found.watermark = found.records = info.get("records", 0)
        found.is_deserted = info.get("deserted", False)
        run.add(found)
    assert run.closing_line() == line


def test_a_stream_that_had_ended_when_the_run_was_opened_is_not_watched() -> None:
    run = new_run()
    run.add(peer(1, 0, end="bye"))
    run.add(peer(2, 1))
    assert [found.rank for found in run.peers.values()] == [0, 1]
    assert [found.rank for found in run.speaking.values()] == [1]


def test_a_process_that_learns_its_rank_late_becomes_that_rank() -> None:
    run = new_run()
    early = peer(1)
    run.add(early)
    assert not run.relabel(early, early.info.origin)
    assert run.relabel(early, replace(early.info.origin, rank=3))
    run.end(early, End(ENDED))
    assert run.attempt_of(early.info.origin) == 1, "the next process of that rank is another attempt"
