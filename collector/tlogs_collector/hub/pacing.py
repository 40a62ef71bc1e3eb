"""How often ranks report and how much they may send: set so that the collector's load is bounded. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tlogs_collector.hub.admission import Admission
from tlogs_collector.hub.followers import Followers
from tlogs_collector.hub.run import Run

__all__ = ["AGE_S", "PERIOD_S", "Pacing"]

MAX_WINDOW: Final = 4 * 1024 * 1024
WINDOW_BUDGET: Final = 256 * 1024 * 1024
"""What all ranks together may have in flight: the collector's memory is bounded by it."""

MIN_WINDOW: Final = 64 * 1024

BEATS_PER_S: Final = 500
BATCHES_PER_S: Final = 5000
"""Beyond these rates the ranks are told to send less often, which leaves the collector room for their records."""

AGE_S: Final = 0.02
PERIOD_S: Final = 1.0
FOLLOWED_PERIOD_S: Final = 0.5
FOLLOWED_PEERS: Final = 64
"""Up to this many ranks send heartbeats faster while somebody follows, so that merged output lags less."""


@dataclass(slots=True)
class Pacing:
    """The rates and the window of this collector."""

    admission: Admission
    followers: Followers

    def adjust(self, run: Run) -> None:
        """Set a run's time between heartbeats, and the age at which a record is sent at the latest."""
        followed = run.live <= FOLLOWED_PEERS and self.followers.is_followed(run.name)
        run.age_s = max(AGE_S, run.live / BATCHES_PER_S)
        run.period_s = max(FOLLOWED_PERIOD_S if followed else PERIOD_S, run.live / BEATS_PER_S)

    def window(self) -> int:
        """How many unacknowledged bytes one stream may have."""
        return max(MIN_WINDOW, min(MAX_WINDOW, WINDOW_BUDGET // max(1, self.admission.streams)))
