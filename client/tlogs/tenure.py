"""The leases that this rank holds, each with its end on the rank's own clock.

Pure. The collector sends the whole list again whenever it may have been missed; what it says is left of a lease can
shorten the time here, never prolong it, and a lease that has ended here stays ended.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tlogs_shared.lease import Lease

__all__ = ["Tenure"]


@dataclass(slots=True)
class _Held:
    lease: Lease
    ends_s: float | None


class Tenure:
    """The leases in force on one rank, in the collector's order."""

    def __init__(self) -> None:
        self._held: dict[int, _Held] = {}
        self._ended: set[int] = set()

    @property
    def leases(self) -> list[Lease]:
        """In force, oldest first."""
        return [held.lease for held in self._held.values()]

    @property
    def next_end_s(self) -> float | None:
        """When the next lease ends, in seconds of the monotonic clock."""
        return min((held.ends_s for held in self._held.values() if held.ends_s is not None), default=None)

    def replace(self, leases: Iterable[Lease], now_s: float) -> tuple[list[Lease], list[Lease]]:
        """Take over the collector's whole list; what began and what ended by it."""
        before = self._held
        self._held = {}
        for lease in leases:
            ends = None if lease.ttl_s is None else now_s + lease.ttl_s
            known = before.get(lease.revision)
            if known is not None and known.ends_s is not None:
                ends = known.ends_s if ends is None else min(ends, known.ends_s)
            if lease.revision in self._ended:
                continue
            if ends is not None and ends <= now_s:
                self._ended.add(lease.revision)
                continue
            self._held[lease.revision] = _Held(lease, ends)
        began = [held.lease for revision, held in self._held.items() if revision not in before]
        ended = [held.lease for revision, held in before.items() if revision not in self._held]
        return began, ended

    def expire(self, now_s: float) -> list[Lease]:
        """End what has run out; those leases."""
        ended = [held.lease for held in self._held.values() if held.ends_s is not None and held.ends_s <= now_s]
        for lease in ended:
            del self._held[lease.revision]
            self._ended.add(lease.revision)
        return ended
