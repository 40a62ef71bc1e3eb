"""The leases that this rank holds, each with its end on the rank's own clock.

Pure. The collector sends the whole list again whenever it may have been missed; what it says is left of a lease can
shorten the time here, never prolong it, and a lease that has ended here stays ended.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from tlogs_shared.protocol.lease import Lease

__all__ = ["HeldLeases"]


@dataclass(slots=True)
class _Held:
    lease: Lease
    ends_s: float | None


_Name: TypeAlias = tuple[int, int]
"""A lease's revision and birth: a collector that lost its journal counts revisions from the start again."""


class HeldLeases:
    """The leases in force on one rank, in the collector's order."""

    def __init__(self) -> None:
        self._held: dict[_Name, _Held] = {}
        self._ended: set[_Name] = set()

    @property
    def leases(self) -> list[Lease]:
        """In force, oldest first."""
        return [held.lease for held in self._held.values()]

    @property
    def next_end_s(self) -> float | None:
        """When the next lease ends, in seconds of the monotonic clock."""
        return min((held.ends_s for held in self._held.values() if held.ends_s is not None), default=None)

    def replace(self, leases: Iterable[Lease], now_s: float) -> tuple[list[Lease], list[Lease]]:
        """Replace the held leases with the collector's list; return (started, ended)."""
        before, self._held = self._held, {}
        for lease in leases:
            name = _name(lease)
            if name in self._ended:
                continue
            ends = [] if lease.ttl_s is None else [now_s + lease.ttl_s]
            if (known := before.get(name)) is not None and known.ends_s is not None:
                ends.append(known.ends_s)
            if ends and min(ends) <= now_s:
                self._ended.add(name)
            else:
                self._held[name] = _Held(lease, min(ends, default=None))
        began = [held.lease for name, held in self._held.items() if name not in before]
        ended = [held.lease for name, held in before.items() if name not in self._held]
        return began, ended

    def expire(self, now_s: float) -> list[Lease]:
        """End what has run out; those leases."""
        ended = [held.lease for held in self._held.values() if held.ends_s is not None and held.ends_s <= now_s]
        for lease in ended:
            del self._held[_name(lease)]
            self._ended.add(_name(lease))
        return ended


def _name(lease: Lease) -> _Name:
    return lease.revision, lease.created_ns
