"""One run as the collector sees it: its streams, its attempts, its leases.

Pure. A run's leases with their revision are the desired state; what each rank answered stands in its peer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tlogs_collector.hub.peer import Peer
from tlogs_shared.end import End
from tlogs_shared.errors import MessageError
from tlogs_shared.origin import Origin
from tlogs_shared.protocol.clock import Moment
from tlogs_shared.protocol.lease import Lease, stack
from tlogs_shared.protocol.messages import Settings
from tlogs_shared.rankset import RankSet

__all__ = ["Run"]

FOR_EVER_NS: Final = 2**63 - 1

LATE_COMER_S: Final = 60.0
"""A rank whose mates have all ended belongs to them if they spoke so recently; later it is another job's."""


@dataclass(slots=True)
class Run:
    """A run that this collector stores."""

    name: str
    key: str
    created_ns: int
    peers: dict[bytes, Peer] = field(default_factory=dict)
    leases: list[Lease] = field(default_factory=list)
    revision: int = 0
    world_size: int | None = None
    """Of the ranks that came last: an elastic job may restart with another."""
    is_open: bool = False
    """Whether the store has it open; hellos wait until then."""
    period_s: float = 1.0
    age_s: float = 0.02
    look_due_s: float = 0.0
    ended_s: float | None = None
    """Since when no rank is live, None while one is."""
    is_concluded: bool = False
    """Whether the run is over, and that has been said."""
    stalled: str = ""
    """Why the store takes nothing at present, "" while it does."""
    taken: int = 0
    """How often what is stored has changed: by this followers' news are told from what they know."""
    speaking: dict[bytes, Peer] = field(default_factory=dict)
    """The streams that may still speak: a long job leaves many behind that do not, and nobody looks at those."""
    _by_rank: dict[int, list[Peer]] = field(default_factory=dict)
    """The streams that are ranks themselves: a hello must not cost a look at every other rank."""

    # Streams.

    def add(self, peer: Peer) -> None:
        """A stream has come."""
        self.peers[peer.stream] = peer
        if peer.is_open:
            self.speaking[peer.stream] = peer
        self._enlist(peer)

    def relabel(self, peer: Peer, origin: Origin) -> bool:
        """A stream says who it is; whether that is news."""
        before = peer.info.origin
        origin = self.without_rank(origin)
        if origin == before:
            return False
        if peer.is_rank and peer.rank is not None:
            self._by_rank[peer.rank].remove(peer)
        attempt = peer.info.attempt
        if (origin.rank, origin.helper) != (before.rank, before.helper):
            attempt = self.attempt_of(origin)
        peer.info = replace(peer.info, origin=origin, attempt=attempt)
        self._enlist(peer)
        return True

    def without_rank(self, origin: Origin) -> Origin:
        """The origin, without the rank that it assumed where a process that it has started is that rank.

        So it is with a program that spawns its ranks: it is none itself.
        """
        if not origin.provisional or origin.rank is None or origin.helper is not None:
            return origin
        rivals = (peer.info.origin for peer in self._by_rank.get(origin.rank, ()))
        if any((rival.host, rival.parent) == (origin.host, origin.pid) for rival in rivals if not rival.provisional):
            return replace(origin, rank=None, local_rank=None, world_size=None)
        return origin

    def give_way(self, origin: Origin) -> Peer | None:
        """Take its rank from the process that has started this one and only assumed it; return that process's peer."""
        if origin.rank is None or origin.provisional or origin.helper is not None or not origin.parent:
            return None
        for peer in self._by_rank.get(origin.rank, ()):
            starter = peer.info.origin
            if (starter.host, starter.pid) == (origin.host, origin.parent) and starter.provisional:
                self.relabel(peer, starter)
                return peer
        return None

    def _enlist(self, peer: Peer) -> None:
        if peer.is_rank and peer.rank is not None:
            self._by_rank.setdefault(peer.rank, []).append(peer)

    def end(self, peer: Peer, end: End) -> None:
        """A stream has ended, so."""
        self.speaking.pop(peer.stream, None)
        peer.end(end)

    def reopen(self, peer: Peer) -> None:
        """A stream that had ended speaks again."""
        self.speaking[peer.stream] = peer
        peer.is_deserted = False
        peer.info = replace(peer.info, end=None)

    @property
    def live(self) -> int:
        """How many streams may still speak."""
        return len(self.speaking)

    @property
    def is_live(self) -> bool:
        """Whether something may still come."""
        return self.live > 0

    @property
    def has_live_rank(self) -> bool:
        """Whether a rank may still speak; where there are only other processes, whether one of those may."""
        speaking = self.speaking.values()
        return any(peer.is_rank for peer in speaking) if self._by_rank else bool(speaking)

    @property
    def last_end_ns(self) -> int:
        """When the last of its processes ended; 0 where that is not known."""
        return max((peer.info.since_ns for peer in self.peers.values() if not peer.is_open), default=0)

    @property
    def is_over(self) -> bool:
        """Whether every stream that was here has ended."""
        return bool(self.peers) and not self.live

    def ranks(self) -> list[Peer]:
        """The streams that are ranks themselves, by rank."""
        return [peer for _, peers in sorted(self._by_rank.items()) for peer in peers]

    def newest(self) -> list[Peer]:
        """For each rank the stream of its newest attempt, by rank; of several that are alive, all.

        A process that only assumes its rank gives way to one that knows it: the parent of spawned ranks to its rank 0.
        """
        found: list[Peer] = []
        for _, peers in sorted(self._by_rank.items()):
            if len(peers) > 1:
                peers = [peer for peer in peers if not peer.info.origin.provisional] or peers
                last = max(peer.info.attempt for peer in peers)
                newest = [peer for peer in peers if peer.info.attempt == last]
                peers = [peer for peer in peers if peer.is_open] or newest[-1:]
            found += peers
        return found

    @property
    def rank_count(self) -> int:
        """How many ranks there were."""
        return sum(1 for peers in self._by_rank.values() if peers)

    def rival(self, stream: bytes, origin: Origin) -> Peer | None:
        """Another live stream that says it is the same rank."""
        if origin.rank is None or origin.helper is not None or origin.provisional:
            return None
        for peer in self._by_rank.get(origin.rank, ()):
            if peer.stream != stream and peer.is_open and not peer.info.origin.provisional:
                return peer
        return None

    def expects(self, origin: Origin, now_s: float) -> bool:
        """Whether this stream belongs here although all others have ended.

        So it is with helpers of a rank, with ranks that torchrun has started again, and with ranks that come late to
        a job so short that their mates are done. Where only helpers have been here, their rank is still to come.
        """
        if not self.ranks():
            return True
        if origin.rank is None or origin.provisional:
            return False
        if origin.helper is not None:
            return bool(self._by_rank.get(origin.rank))
        counts = {peer.info.origin.restart_count for peer in self.ranks()}
        if origin.restart_count is not None and all(count is None or count < origin.restart_count for count in counts):
            return bool(counts - {None})
        mates = [
            peer
            for peer in self.ranks()
            if (peer.info.origin.restart_count, peer.info.origin.world_size)
            == (origin.restart_count, origin.world_size)
        ]
        if not mates or now_s - max(peer.heard_s for peer in mates) > LATE_COMER_S:
            return False
        return all(peer.rank != origin.rank for peer in mates)

    def attempt_of(self, origin: Origin) -> int:
        """The attempt that a new stream begins; a helper, and a second process of a live rank, belong to that one's."""
        if origin.rank is None:
            return 0
        same = self._by_rank.get(origin.rank, ())
        last = max((peer.info.attempt for peer in same), default=-1)
        belongs = origin.helper is not None or any(peer.is_open for peer in same)
        return max(last, 0) if belongs else last + 1

    def horizon_ns(self, late: Iterable[Peer] = ()) -> int:
        """The corrected time before which nothing is still to come from streams that are alive and not *late*."""
        passed = {peer.stream for peer in late}
        lows = [peer.info.corrected(peer.low_ts) for stream, peer in self.speaking.items() if stream not in passed]
        return max(0, min(FOR_EVER_NS, *lows)) if lows else FOR_EVER_NS

    # Leases.

    def settings(self, now: Moment) -> Settings:
        """The desired state as it is sent: each lease with the time that is left of it."""
        return Settings(self.name, self.revision, [lease.as_map() for lease in self.in_force(now)])

    def in_force(self, now: Moment) -> list[Lease]:
        """The leases that have not ended, each with the time that is left of it."""
        return [
            replace(lease, ttl_s=None if lease.ends_ns is None else (lease.ends_ns - now.ns) / 1e9)
            for lease in self.leases
            if lease.ends_ns is None or lease.ends_ns > now.ns
        ]

    def expire(self, now: Moment) -> list[Lease]:
        """Forget what has ended; the ranks have ended it by their own clocks, so the revision stays."""
        ended = [lease for lease in self.leases if lease.ends_ns is not None and lease.ends_ns <= now.ns]
        if ended:
            self.leases = [lease for lease in self.leases if lease not in ended]
        return ended

    def lease(self, lease: Lease, now: Moment) -> Lease:
        """Lay a new lease on top, or in the place of one for the same; it gets its revision and its end."""
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

    def withdraw(self, lease: Lease, displaced: Lease | None) -> None:
        """Take a lease back that holds nowhere; the one in whose place it came returns."""
        self.revision += 1
        self._put_back(lease, displaced)

    def _put_back(self, lease: Lease, displaced: Lease | None) -> None:
        found = [displaced if old.revision == lease.revision else old for old in self.leases]
        self.leases = [old for old in found if old is not None]

    def restore(self, control: Iterable[Mapping[str, Any]]) -> list[str]:
        """Read leases back from the control lines of a run that is continued; what is wrong with them."""
        faults = []
        seen: dict[int, Lease] = {}
        for line in control:
            try:
                self._repeat(line, seen)
            except (MessageError, KeyError, TypeError, ValueError) as error:
                faults.append(f"a line of the control journal cannot be used: {error!r:.80}")
        return faults

    def _repeat(self, line: Mapping[str, Any], seen: dict[int, Lease]) -> None:
        event, revision = line.get("event"), line.get("revision")
        if type(revision) is int:
            self.revision = max(self.revision, revision)
        if event == "lease":
            lease = seen[line["revision"]] = Lease.from_map(line["lease"])
            self.leases = stack(self.leases, lease)
        elif event in ("reset", "expired"):
            gone = set(line["ends"])
            self.leases = [lease for lease in self.leases if lease.revision not in gone]
        elif event == "withdrawn":
            (gone_one,) = line["ends"]
            returned = line.get("returns")
            self._put_back(seen[gone_one], None if returned is None else seen[returned])

    def in_scope(self, lease: Lease) -> list[Peer]:
        """The live ranks that *lease* covers."""
        return [peer for peer in self.newest() if peer.is_open and lease.covers(peer.rank, peer.info.origin.host)]

    def outside(self, lease: Lease) -> RankSet:
        """The ranks that *lease* names and the job, as it is now, has not."""
        if lease.ranks.complement or self.world_size is None:
            return RankSet()
        return RankSet.of(rank for rank in lease.ranks if rank >= self.world_size)

    # The end.

    def counts(self) -> str:
        """Ranks and records of this run; arithmetic over sequence numbers."""
        peers = self.peers.values()
        ranks = self.rank_count
        dropped = sum(peer.dropped for peer in peers)
        lost = sum(peer.lost for peer in peers)
        records = sum(peer.records for peer in peers)
        return (
            f"{ranks} rank{'s' if ranks != 1 else ''}, {records} record{'s' if records != 1 else ''}, "
            f"{dropped} dropped, {lost} lost"
        )

    def closing_line(self) -> str:
        """What the daemon says of this run at its own end."""
        line = f"run {self.name}: {self.counts()}"
        wordless = RankSet.of(peer.rank for peer in self.ranks() if peer.is_deserted and peer.rank is not None)
        if wordless:
            line += f"; rank{'s' if len(wordless) > 1 else ''} {wordless} ended without a word"
        return line
