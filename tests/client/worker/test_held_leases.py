"""How long a rank holds a lease: by its own clock, never longer than it was first told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tlogs.worker.held_leases import HeldLeases
from tlogs_shared.protocol.lease import Lease


def lease(revision: int, ttl_s: float | None = 60.0, born_ns: int = 5) -> Lease:
    return Lease(revision, {"c10d": 10}, ttl_s=ttl_s, created_ns=born_ns)


def revisions(leases: list[Lease]) -> list[int]:
    return [found.revision for found in leases]


def test_what_the_collector_sends_again_can_shorten_and_never_prolong() -> None:
    tenure = HeldLeases()
    tenure.replace([lease(1, 60.0), lease(2, None)], 0.0)
    assert tenure.next_end_s == 60.0
    tenure.replace([lease(1, 60.0), lease(2, None)], 30.0)
    assert tenure.next_end_s == 60.0
    tenure.replace([lease(1, None), lease(2, None)], 30.0)
    assert tenure.next_end_s == 60.0
    tenure.replace([lease(1, 5.0), lease(2, 8.0)], 30.0)
    assert tenure.next_end_s == 35.0
    assert (revisions(tenure.expire(34.9)), revisions(tenure.expire(35.0))) == ([], [1])
    assert tenure.next_end_s == 38.0


def test_what_began_and_what_ended_is_told_once() -> None:
    tenure = HeldLeases()
    assert [revisions(found) for found in tenure.replace([lease(1), lease(2)], 0.0)] == [[1, 2], []]
    assert [revisions(found) for found in tenure.replace([lease(2), lease(3)], 1.0)] == [[3], [1]]
    assert revisions(tenure.leases) == [2, 3]
    assert [revisions(found) for found in tenure.replace([], 2.0)] == [[], [2, 3]]
    assert tenure.next_end_s is None


def test_a_lease_that_comes_too_late_never_begins() -> None:
    tenure = HeldLeases()
    assert tenure.replace([lease(1, 0.0)], 5.0) == ([], [])
    assert tenure.replace([lease(1, 60.0)], 6.0) == ([], [])


def test_a_collector_that_lost_its_journal_may_use_a_number_again() -> None:
    tenure = HeldLeases()
    tenure.replace([lease(1, 5.0)], 0.0)
    tenure.expire(5.0)
    began, _ = tenure.replace([lease(1, 60.0, born_ns=6)], 6.0)
    assert revisions(began) == [1]


@given(st.lists(st.tuples(st.floats(0.0, 30.0), st.none() | st.floats(0.0, 90.0)), min_size=1, max_size=10))
def test_a_lease_never_ends_later_than_at_first_and_stays_ended(told: list[tuple[float, float | None]]) -> None:
    tenure = HeldLeases()
    now, latest, has_ended = 0.0, float("inf"), False
    for wait, ttl_s in told:
        now += wait
        has_ended |= bool(tenure.expire(now))
        tenure.replace([lease(1, ttl_s)], now)
        latest = latest if ttl_s is None else min(latest, now + ttl_s)
        has_ended |= latest <= now
        assert revisions(tenure.leases) == ([] if has_ended else [1])
        assert tenure.next_end_s is None or tenure.next_end_s <= latest
