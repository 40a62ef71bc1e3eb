"""The operators' side of the hub: questions, changes of levels, followers. Pure, as the hub is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tlogs_collector.hub.actions import Action, Control, Read, Send, Tell
from tlogs_collector.hub.changes import Changes
from tlogs_collector.hub.peer import Peer
from tlogs_collector.hub.run import Run
from tlogs_shared.protocol.clock import Moment
from tlogs_shared.protocol.lease import Lease
from tlogs_shared.protocol.messages import Ask, Change, Fetch, Follow, Report
from tlogs_shared.rankset import RankSet

if TYPE_CHECKING:
    from tlogs_collector.hub.hub import Hub

__all__ = ["Desk"]

EVERY_RUN: Final = "*"


@dataclass(slots=True)
class Desk:
    """Who asks, who follows, and what they were told."""

    hub: Hub
    changes: Changes = field(default_factory=Changes)
    followers: dict[bytes, str | None] = field(default_factory=dict)
    _told: dict[tuple[bytes, str], tuple[int, int, bool]] = field(default_factory=dict)

    def handle(self, connection: bytes, message: Ask | Change | Follow | Fetch, now: Moment) -> list[Action]:
        """What an operator's message asks for."""
        match message:
            case Ask():
                error, data = self._answer(message, now)
                return [Send(connection, Report(message.number, error, data))]
            case Change():
                run = self._choose_one(message.run)
                if isinstance(run, str):
                    return [Send(connection, Report(message.number, run, None))]
                return self.changes.ask(connection, message, run, now)
            case Follow():
                self.followers[connection] = message.run
                return []
            case Fetch():
                return [Read(connection, message)]

    def forget(self, connection: bytes) -> None:
        """This operator has gone."""
        if connection in self.followers:
            del self.followers[connection]
            self._told = {key: told for key, told in self._told.items() if key[0] != connection}

    def __contains__(self, connection: object) -> bool:
        """Whether this operator waits for something, and so may be silent."""
        return isinstance(connection, bytes) and (connection in self.followers or self.changes.is_awaiting(connection))

    # Questions.

    def _choose(self, name: str | None) -> Run | str:
        """The run that is meant, or a sentence why none is."""
        runs = self.hub.runs
        if name is not None:
            found = [run for run in runs.values() if run.name == name] or [
                run for run in runs.values() if run.name.startswith(name)
            ]
            if len(found) == 1:
                return found[0]
            if found:
                return f"several runs begin with {name!r}: {', '.join(run.name for run in found)}"
            there = f"there {'are' if len(runs) > 1 else 'is'}: {', '.join(runs)}" if runs else "no run is live"
            return f"no run {name!r} here; {there}"
        if not runs:
            return "no run has begun here yet"
        live = [run for run in runs.values() if run.is_live]
        return max(live or runs.values(), key=lambda run: run.created_ns)

    def _choose_one(self, name: str | None) -> Run | str:
        """The run that is to be changed: where several are live, it has to be named."""
        live = [run.name for run in self.hub.runs.values() if run.is_live]
        if name is None and len(live) > 1:
            return f"several runs are live: {', '.join(live)}; choose one with --run"
        return self._choose(name)

    def _answer(self, ask: Ask, now: Moment) -> tuple[str, Any]:
        if ask.what == "hello":
            return "", {}
        if ask.what == "runs":
            return "", [_run_row(run) for run in self.hub.runs.values()]
        rejected = self.hub.admission.rejected
        if ask.what == "ranks" and ask.run is None and not self.hub.runs:
            return "", {"run": None, "rows": [], "rejected": rejected}
        run = self._choose(ask.run)
        if isinstance(run, str):
            return run, None
        match ask.what:
            case "ranks":
                return "", {"run": run.name, "rows": _rank_rows(run, now), "rejected": rejected}
            case "levels":
                leases = [_lease_row(lease, run) for lease in run.in_force(now)]
                return "", {"run": run.name, "leases": leases, "groups": _reports(run)}
            case _:
                return f"this collector cannot answer {ask.what!r}", None

    # Time.

    def tick(self, now: Moment) -> list[Action]:
        """Report changes whose time for answers is over, end leases, tell followers what is new."""
        actions = self.changes.tick(now)
        for run in self.hub.runs.values():
            if ended := run.expire(now):
                ends = [lease.revision for lease in ended]
                actions.append(Control(run.name, {"time_ns": now.ns, "event": "expired", "ends": ends}))
        news: dict[str, tuple[int, int, bool]] = {}
        for connection, name in self.followers.items():
            for run in self._followed(name):
                if run.is_open:
                    found = news[run.name] = news.get(run.name) or _news(run, now)
                    actions += self._tell(connection, run.name, found)
        return actions

    def is_followed(self, run: str) -> bool:
        """Whether somebody waits for records of *run*."""
        return any(found.name == run for name in self.followers.values() for found in self._followed(name))

    def _followed(self, name: str | None) -> Iterable[Run]:
        if name == EVERY_RUN:
            return self.hub.runs.values()
        run = self._choose(name)
        return [] if isinstance(run, str) else [run]

    def _tell(self, connection: bytes, run: str, news: tuple[int, int, bool]) -> list[Action]:
        if self._told.get((connection, run)) == news:
            return []
        self._told[connection, run] = news
        return [Tell(connection, run, news[1], news[2])]


def _news(run: Run, now: Moment) -> tuple[int, int, bool]:
    """What a follower is told of a run: that more is stored, the time before which nothing is to come, if it lives."""
    late = [peer for peer in run.speaking.values() if peer.is_late(now.s, run.period_s)]
    return run.taken, run.horizon_ns(late), run.is_live


def _run_row(run: Run) -> dict[str, Any]:
    peers = run.peers.values()
    return {
        "name": run.name,
        "created_ns": run.created_ns,
        "live": run.is_live,
        "ranks": run.rank_count,
        "records": sum(peer.records for peer in peers),
        "dropped": sum(peer.dropped for peer in peers),
        "lost": sum(peer.lost for peer in peers if not peer.is_open),
    }


def _rank_rows(run: Run, now: Moment) -> list[dict[str, Any]]:
    """The ranks as `tlogs ranks --json` shows them."""
    newest = run.newest()
    count = Counter(peer.rank for peer in newest)
    rows = []
    for peer in newest:
        row = _rank_row(peer, now, run.period_s)
        if count[peer.rank] > 1:
            row["duplicate"] = True  # another live process says that it is this rank
        rows.append(row)
    return rows


def _rank_row(peer: Peer, now: Moment, period_s: float) -> dict[str, Any]:
    last = None if peer.last_record_ns is None else (now.ns - peer.info.corrected(peer.last_record_ns)) / 1e9
    offset = peer.info.offset_ns
    row: dict[str, Any] = {
        "rank": peer.rank,
        "host": peer.info.origin.host,
        "pid": peer.info.origin.pid,
        "attempt": peer.info.attempt,
        "state": peer.state(now.s, now.ns, period_s),
        "stored": peer.records,
        "in_flight": max(0, peer.info.head - peer.stored) if peer.is_open else 0,
        "dropped": peer.dropped,
        "last_record_s": None if last is None else round(max(last, 0.0), 3),
        "last_heard_s": round(max(now.s - peer.heard_s, 0.0), 3),
        "clock_offset_ms": 0.0 if offset is None else round(offset / 1e6, 3),
        "revision": peer.revision,
    }
    if peer.info.end == "gone" and peer.info.origin.outbox:
        row["outbox"] = peer.info.origin.outbox
    return row


def _lease_row(lease: Lease, run: Run) -> dict[str, Any]:
    """A lease as `tlogs levels --json` shows it; `outside` are ranks that it names and the job has not any more."""
    row = lease.as_map()
    if outside := run.outside(lease):
        row["outside"] = str(outside)
    return row


def _reports(run: Run) -> list[tuple[str, bytes]]:
    """What the ranks report of their levels, the same report once: from thousands of ranks it fits one message."""
    groups: dict[bytes, list[int]] = {}
    for peer in run.newest():
        if peer.is_open and peer.rank is not None:
            groups.setdefault(peer.report, []).append(peer.rank)
    return [(str(RankSet.of(ranks)), report) for report, ranks in groups.items()]
