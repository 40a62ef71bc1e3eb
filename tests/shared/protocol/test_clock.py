"""The offset between two clocks, from heartbeats and their answers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tlogs_shared.protocol.clock import MEMORY_S, ClockEstimate

DELAYS = st.integers(0, 10**9)


@given(st.integers(-(10**15), 10**15), st.lists(st.tuples(DELAYS, DELAYS, DELAYS), min_size=1, max_size=8))
def test_the_true_offset_lies_within_the_bound(offset: int, delays: list[tuple[int, int, int]]) -> None:
    """However long the way there, the answer and the way back took."""
    estimate = ClockEstimate()
    for there, busy, back in delays:
        sent = 10**18
        received = sent + there + offset
        replied = received + busy
        estimate.add(sent, received, replied, replied - offset + back, now=0.0)
    assert estimate.best is not None
    found, bound = estimate.best
    assert abs(found - offset) <= bound + 1
    assert bound == min((there + back) // 2 for there, _, back in delays)


def test_there_is_no_estimate_before_the_first_answer() -> None:
    assert ClockEstimate().best is None


def test_the_quickest_exchange_of_the_last_minute_is_believed() -> None:
    estimate = ClockEstimate()
    estimate.add(0, 1010, 1010, 20, now=0.0)
    estimate.add(0, 5500, 5500, 1000, now=30.0)
    assert estimate.best == (1000, 10)
    estimate.add(0, 5050, 5050, 100, now=MEMORY_S + 1.0)
    assert estimate.best == (5000, 50)


def test_an_exchange_that_cannot_be_is_passed_over() -> None:
    """A clock that was set in between: the answer would have come before the question."""
    estimate = ClockEstimate()
    estimate.add(1000, 0, 0, 900, now=0.0)
    estimate.add(0, 100, 50, 200, now=0.0)
    assert estimate.best is None
