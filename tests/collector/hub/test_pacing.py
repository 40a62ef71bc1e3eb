"""How often ranks report and how much they may send."""

from __future__ import annotations

import pytest
from tests.collector.conftest import Stage

from tlogs_shared.protocol import messages as m


@pytest.mark.parametrize(("streams", "window"), [(1, 4 << 20), (64, 4 << 20), (128, 2 << 20), (9000, 64 << 10)])
def test_the_window_shrinks_with_the_number_of_streams(stage: Stage, streams: int, window: int) -> None:
    """What all ranks together may have on the way is bounded."""
    for number in range(streams):
        stage.rank(number, world_size=None).hello()
    assert stage.hub.pacing.window() == window


@pytest.mark.parametrize(
    ("ranks", "followed", "period_s", "age_s"),
    [(1, False, 1.0, 0.02), (2, True, 0.5, 0.02), (70, True, 1.0, 0.02), (600, False, 1.2, 0.12)],
)
def test_the_pace_follows_the_size_of_the_job_and_whether_someone_watches(
    stage: Stage, ranks: int, followed: bool, period_s: float, age_s: float
) -> None:
    found = stage.ranks(ranks)
    if followed:
        stage.say(b"follower", m.Ask(1, "hello"))
        stage.say(b"follower", m.Follow(None))
    stage.wait(0.01)
    beat = found[0].beat()[0]
    assert isinstance(beat, m.Beat)
    assert (beat.period_s, beat.age_s) == (period_s, age_s)


# Life.
