"""Operators' questions: rows of runs and ranks, levels; changes, following and pages are handed on. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from tlogs_collector.hub.actions import Action, Read, Send
from tlogs_collector.hub.admission import Admission
from tlogs_collector.hub.changes import Changes
from tlogs_collector.hub.followers import Followers
from tlogs_collector.hub.peer import Peer
from tlogs_collector.hub.run import Run
from tlogs_collector.hub.runs import Runs
from tlogs_shared.protocol.clock import Moment
from tlogs_shared.protocol.lease import Lease
from tlogs_shared.protocol.messages import Ask, Change, Fetch, Follow, Report
from tlogs_shared.protocol.rows import LeaseRow, LevelsReport, PeerRow, RanksReport, Refusals, RunRow
from tlogs_shared.rankset import RankSet

__all__ = ["Questions"]


@dataclass(slots=True)
class Questions:
    """The operators' door to the hub."""

    runs: Runs
    admission: Admission
    changes: Changes
    followers: Followers
    instance: str = ""

    def handle(self, connection: bytes, message: Ask | Change | Follow | Fetch, now: Moment) -> list[Action]:
        """Answer an operator's message."""
        match message:
            case Ask():
                error, data = self._answer(message, now)
                return [Send(connection, Report(message.number, error, data))]
            case Change():
                run = self.runs.changeable(message.run)
                if isinstance(run, str):
                    return [Send(connection, Report(message.number, run, None))]
                return self.changes.ask(connection, message, run, now)
            case Follow():
                self.followers.add(connection, message.run)
                return []
            case Fetch():
                return [Read(connection, message)]

    def is_waiting(self, connection: bytes) -> bool:
        """Whether this operator waits for something, and so may be silent."""
        return connection in self.followers.by_connection or self.changes.is_awaited_by(connection)

    def tick(self, now: Moment) -> list[Action]:
        """Messages due to operators as time passes: reports whose deadline has passed, and news."""
        return self.changes.tick(now) + self.followers.tick(now)

    def _answer(self, ask: Ask, now: Moment) -> tuple[str, Any]:
        """An error or "", and the answer."""
        if ask.what == "hello":
            return "", {"instance": self.instance}
        if ask.what == "runs":
            return "", [_run_row(run) for run in self.runs.by_name.values()]
        refused = self._refused(now)
        if ask.what in ("ranks", "attempts") and ask.run is None and not self.runs.by_name:
            return "", RanksReport(run=None, rows=[], refused=refused)
        run = self.runs.named(ask.run)
        if isinstance(run, str):
            return run, None
        match ask.what:
            case "ranks":
                return "", RanksReport(run=run.name, rows=_peer_rows(run, run.newest(), now), refused=refused)
            case "attempts":
                return "", RanksReport(run=run.name, rows=_peer_rows(run, run.ranks(), now), refused=refused)
            case "levels":
                leases = [_lease_row(lease, run) for lease in run.in_force(now)]
                return "", LevelsReport(run=run.name, leases=leases, groups=_reports(run))
            case _:
                return f"this collector cannot answer {ask.what!r}", None

    def _refused(self, now: Moment) -> Refusals | None:
        """How many messages were refused, how long ago the last one and why; None where there was none."""
        why, at_s = self.admission.last_rejection
        count = self.admission.rejected
        return Refusals(count=count, last_s=round(now.s - at_s, 3), why=why) if count else None


def _run_row(run: Run) -> RunRow:
    peers = run.peers.values()
    return RunRow(
        name=run.name,
        created_ns=run.created_ns,
        live=run.has_live_rank,
        over=run.is_concluded,
        ranks=run.rank_count,
        records=sum(peer.records for peer in peers),
        dropped=sum(peer.dropped for peer in peers),
        lost=sum(peer.lost for peer in peers if not peer.is_open),
    )


def _peer_rows(run: Run, peers: Sequence[Peer], now: Moment) -> list[PeerRow]:
    count = Counter((peer.rank, peer.info.attempt) for peer in peers)
    rows = []
    for peer in peers:
        assert peer.rank is not None
        row = _peer_row(peer.rank, peer, now)
        if count[peer.rank, peer.info.attempt] > 1:
            row["duplicate"] = True
        if peer.is_open and peer.is_late(now.s, run.period_s):
            row["late"] = True
        rows.append(row)
    return rows


def _peer_row(rank: int, peer: Peer, now: Moment) -> PeerRow:
    info, end = peer.info, peer.info.end
    last = None if peer.last_record_ns is None else (now.ns - info.corrected(peer.last_record_ns)) / 1e9
    row = PeerRow(
        stream=peer.stream,
        rank=rank,
        host=info.origin.host,
        pid=info.origin.pid,
        attempt=info.attempt,
        state=peer.state,
        since_ns=info.since_ns,
        exit=None if end is None else end.exit,
        stored=peer.records,
        in_flight=max(0, info.head - peer.stored) if peer.is_open else 0,
        dropped=peer.dropped,
        last_record_s=None if last is None else round(max(last, 0.0), 3),
        last_heard_s=round(max(now.s - peer.heard_s, 0.0), 3),
        clock_offset_ms=0.0 if info.offset_ns is None else round(info.offset_ns / 1e6, 3),
        revision=peer.revision,
    )
    if peer.is_deserted and info.origin.outbox:
        row["outbox"] = info.origin.outbox
    return row


def _lease_row(lease: Lease, run: Run) -> LeaseRow:
    row = cast(LeaseRow, lease.as_map())
    if outside := run.outside(lease):
        row["outside"] = str(outside)
    return row


def _reports(run: Run) -> list[tuple[str, bytes]]:
    """The ranks' reports of their levels, equal ones once: from thousands of ranks they fit one message."""
    groups: dict[bytes, list[int]] = {}
    for peer in run.newest():
        if peer.is_open and peer.rank is not None:
            groups.setdefault(peer.report, []).append(peer.rank)
    return [(str(RankSet.of(ranks)), report) for report, ranks in groups.items()]
