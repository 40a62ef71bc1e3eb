"""One run as the collector sees it: its streams, its attempts, its leases.

Pure. A run's leases with their revision are the desired state; what each rank answered stands in its peer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tlogs_collector.peer import Peer
from tlogs_shared.clock import Moment
from tlogs_shared.lease import Lease, stack
from tlogs_shared.messages import Settings
from tlogs_shared.origin import Origin
from tlogs_shared.rankset import RankSet

__all__ = ["Run"]

FOR_EVER_NS: Final = 2**63 - 1


@dataclass(slots=True)
class Run:
    """A run that this collector stores."""

    name: str
    key: str
    created_ns: int
    peers: dict[bytes, Peer] = field(default_factory=dict)
    leases: list[Lease] = field(default_factory=list)
    revision: int = 0
    once: dict[str, Lease] = field(default_factory=dict)
    """What ranks have asked for from inside the job, by the call."""
    is_open: bool = False
    """Whether the store has it open; hellos wait until then."""
    period_s: float = 1.0
    age_s: float = 0.02
    stalled: str = ""
    """Why the store takes nothing at present, "" while it does."""

    # Streams.

    def ranks(self) -> list[Peer]:
        """The streams that are ranks themselves, in the order in which they came."""
        return [peer for peer in self.peers.values() if peer.is_rank]

    def newest(self) -> list[Peer]:
        """For each rank the stream of its newest attempt, by rank; of two that are both alive, both."""
        by_rank: dict[int, list[Peer]] = {}
        for peer in self.ranks():
            assert peer.rank is not None
            by_rank.setdefault(peer.rank, []).append(peer)
        found: list[Peer] = []
        for _, peers in sorted(by_rank.items()):
            last = max(peer.info.attempt for peer in peers)
            newest = [peer for peer in peers if peer.info.attempt == last]
            alive = [peer for peer in newest if peer.is_open]
            found += alive or newest[-1:]
        return found

    @property
    def is_over(self) -> bool:
        """Whether every stream that was here has ended."""
        return bool(self.peers) and not any(peer.is_open for peer in self.peers.values())

    def lacks(self, origin: Origin) -> bool:
        """Whether this rank has yet to come: short jobs may lose their first ranks before the last ones arrive."""
        if origin.rank is None or origin.world_size is None or origin.provisional:
            return False
        return all(peer.rank != origin.rank and peer.info.origin.world_size == origin.world_size for peer in self.ranks())

    @property
    def is_live(self) -> bool:
        """Whether something may still come."""
        return any(peer.is_open for peer in self.peers.values())

    def rival(self, stream: bytes, origin: Origin) -> Peer | None:
        """Another live stream that says it is the same rank."""
        if origin.rank is None or origin.helper is not None or origin.provisional:
            return None
        for peer in self.ranks():
            if peer.rank == origin.rank and peer.stream != stream and peer.is_open and not peer.info.origin.provisional:
                return peer
        return None

    def attempt_of(self, stream: bytes, origin: Origin) -> int:
        """The number of the attempt that a new stream begins, or belongs to as a helper."""
        same = [peer.info.attempt for peer in self.ranks() if peer.rank == origin.rank and peer.stream != stream]
        if origin.rank is None or not same:
            return 0
        return max(same) if origin.helper is not None else max(same) + 1

    def horizon_ns(self, late: Iterable[Peer] = ()) -> int:
        """The corrected time before which nothing is still to come from streams that are alive and not *late*."""
        passed = {peer.stream for peer in late}
        lows = [
            peer.info.corrected(peer.low_ts)
            for peer in self.peers.values()
            if peer.is_open and peer.stream not in passed
        ]
        return min(lows, default=FOR_EVER_NS)

    # Leases.

    def settings(self, now: Moment) -> Settings:
        """The desired state as it is sent: each lease with the time that is left of it."""
        self.expire(now)
        leases = []
        for lease in self.leases:
            left = None if lease.ends_ns is None else (lease.ends_ns - now.ns) / 1e9
            leases.append(replace(lease, ttl_s=left).as_map())
        return Settings(self.revision, leases)

    def expire(self, now: Moment) -> None:
        """Forget what has ended; the ranks have ended it by their own clocks, so the revision stays."""
        self.leases = [lease for lease in self.leases if lease.ends_ns is None or lease.ends_ns > now.ns]

    def lease(self, lease: Lease, now: Moment) -> Lease:
        """Lay a new lease on top; it gets its revision and its end."""
        self.expire(now)
        self.revision += 1
        ends = None if lease.ttl_s is None else now.ns + int(lease.ttl_s * 1e9)
        lease = replace(lease, revision=self.revision, created_ns=now.ns, ends_ns=ends)
        self.leases = stack(self.leases, lease)
        return lease

    def end_leases(self, revisions: Sequence[int]) -> list[Lease]:
        """End these leases, or all for an empty list; those that were in force."""
        ended = [lease for lease in self.leases if not revisions or lease.revision in revisions]
        if ended:
            self.revision += 1
            self.leases = [lease for lease in self.leases if lease not in ended]
        return ended

    def restore(self, control: Iterable[Mapping[str, Any]], now: Moment) -> None:
        """Read leases back from the control lines of a run that is continued."""
        for line in control:
            revision = line.get("revision")
            if isinstance(revision, int):
                self.revision = max(self.revision, revision)
            if line.get("event") == "lease" and isinstance(line.get("lease"), dict):
                self.leases = stack(self.leases, Lease.from_map(line["lease"]))
            elif line.get("event") in ("reset", "withdrawn"):
                gone = set(line.get("ends", ()))
                self.leases = [lease for lease in self.leases if lease.revision not in gone]
        self.expire(now)

    def in_scope(self, lease: Lease) -> list[Peer]:
        """The live ranks that *lease* covers."""
        return [peer for peer in self.newest() if peer.is_open and lease.covers(peer.rank, peer.info.origin.host)]

    # The end.

    def closing_line(self) -> str:
        """What the daemon says of this run at its end; arithmetic over sequence numbers."""
        peers = self.peers.values()
        ranks = len({peer.rank for peer in self.ranks()})
        dropped = sum(peer.dropped for peer in peers)
        lost = sum(peer.lost for peer in peers)
        records = sum(peer.records for peer in peers)
        line = (
            f"run {self.name}: {ranks} rank{'s' if ranks != 1 else ''}, {records} record{'s' if records != 1 else ''}, "
            f"{dropped} dropped, {lost} lost"
        )
        wordless = RankSet.of(
            peer.rank for peer in self.ranks() if peer.info.end in ("", "gone") and peer.rank is not None
        )
        if wordless:
            line += f"; rank{'s' if len(wordless) > 1 else ''} {wordless} ended without a word"
        return line
