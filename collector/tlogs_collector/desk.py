"""The operators' side of the hub: questions, changes of levels and who answered, followers. Pure, as the hub is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from tlogs_collector.actions import Action, Control, Read, Send, Tell
from tlogs_collector.peer import Peer
from tlogs_collector.run import Run
from tlogs_shared.clock import Moment
from tlogs_shared.errors import MessageError
from tlogs_shared.lease import Lease
from tlogs_shared.messages import Ask, Change, Fetch, Follow, Report
from tlogs_shared.rankset import RankSet

if TYPE_CHECKING:
    from tlogs_collector.hub import Hub

__all__ = ["Desk"]

MAX_TIMEOUT_S: Final = 600.0
EVERY_RUN: Final = "*"


@dataclass(slots=True)
class _Pending:
    """A change whose answers are awaited."""

    connection: bytes
    number: int
    run: Run
    lease: Lease | None
    ended: Sequence[Lease]
    targets: Sequence[Peer]
    began_s: float
    deadline_s: float

    @property
    def revision(self) -> int:
        """The revision of the settings that the answers are about."""
        return self.run.revision if self.lease is None else self.lease.revision


@dataclass(slots=True)
class Desk:
    """What operators asked for and have not been answered yet."""

    hub: Hub
    pending: list[_Pending] = field(default_factory=list)
    followers: dict[bytes, str | None] = field(default_factory=dict)
    _told: dict[tuple[bytes, str], tuple[int, int, bool]] = field(default_factory=dict)

    def handle(self, connection: bytes, message: Ask | Change | Follow | Fetch, now: Moment) -> list[Action]:
        """What an operator's message asks for."""
        match message:
            case Ask():
                return [self._answer(connection, message, now)]
            case Change():
                return self._change(connection, message, now)
            case Follow():
                self.followers[connection] = message.run
                return []
            case Fetch():
                return [Read(connection, message)]

    def forget(self, connection: bytes) -> None:
        """This operator has gone."""
        self.followers.pop(connection, None)
        self.pending = [pending for pending in self.pending if pending.connection != connection]
        self._told = {key: told for key, told in self._told.items() if key[0] != connection}

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
            there = ", ".join(runs) or "none"
            return f"{'several runs begin with' if found else 'no run'} {name!r} here; there is: {there}"
        if not runs:
            return "no run has begun here yet"
        live = [run for run in runs.values() if run.is_live]
        return max(live or runs.values(), key=lambda run: run.created_ns)

    def _answer(self, connection: bytes, ask: Ask, now: Moment) -> Action:
        if ask.what == "hello":
            return Send(connection, Report(ask.number, "", {}))
        if ask.what == "runs":
            return Send(connection, Report(ask.number, "", [self._run_row(run) for run in self.hub.runs.values()]))
        run = self._choose(ask.run)
        if ask.what == "ranks" and ask.run is None and not self.hub.runs:
            return Send(connection, Report(ask.number, "", {"run": None, "rows": []}))
        if isinstance(run, str):
            return Send(connection, Report(ask.number, run, None))
        period = run.period_s
        match ask.what:
            case "ranks":
                rows = [rank_row(peer, now, period) for peer in run.newest()]
                return Send(connection, Report(ask.number, "", {"run": run.name, "rows": rows}))
            case "levels":
                run.expire(now)
                data = {
                    "run": run.name,
                    "leases": [lease_row(lease, now) for lease in run.leases],
                    "ranks": {str(peer.rank): peer.report for peer in run.newest() if peer.is_open},
                }
                return Send(connection, Report(ask.number, "", data))
            case _:
                return Send(connection, Report(ask.number, f"this collector cannot answer {ask.what!r}", None))

    def _run_row(self, run: Run) -> dict[str, Any]:
        peers = run.peers.values()
        return {
            "name": run.name,
            "created_ns": run.created_ns,
            "live": run.is_live,
            "ranks": len({peer.rank for peer in run.ranks()}),
            "records": sum(peer.records for peer in peers),
            "dropped": sum(peer.dropped for peer in peers),
            "lost": sum(peer.lost for peer in peers if not peer.is_open),
        }

    # Changes.

    def _change(self, connection: bytes, change: Change, now: Moment) -> list[Action]:
        def refuse(why: str) -> list[Action]:
            return [Send(connection, Report(change.number, why, None))]

        live = [run.name for run in self.hub.runs.values() if run.is_live]
        if change.run is None and len(live) > 1:
            return refuse(f"several runs are live: {', '.join(live)}; choose one with --run")
        run = self._choose(change.run)
        if isinstance(run, str):
            return refuse(run)
        deadline = now.s + min(max(change.timeout_s, 0.0), MAX_TIMEOUT_S)
        if change.lease is not None:
            try:
                lease = Lease.from_map(dict(change.lease))
            except MessageError as error:
                return refuse(str(error))
            targets = run.in_scope(lease)
            if not targets:
                return refuse(f"run {run.name} has no live rank in that scope ({_scope(lease)}); see: tlogs ranks")
            if change.once in run.once:
                lease = run.once[change.once]
                self.pending.append(_Pending(connection, change.number, run, lease, (), targets, now.s, deadline))
                return self.answered(run, now)
            lease = run.lease(lease, now)
            if change.once:
                run.once[change.once] = lease
            ended: Sequence[Lease] = ()
            line = {"event": "lease", "revision": lease.revision, "lease": lease.as_map()}
        else:
            ended = run.end_leases(change.ends or [])
            if not ended:
                return refuse("no such lease is in force; see: tlogs levels")
            lease = None
            targets = [peer for peer in run.newest() if peer.is_open and any(_covers(old, peer) for old in ended)]
            line = {"event": "reset", "revision": run.revision, "ends": [old.revision for old in ended]}
        pending = _Pending(connection, change.number, run, lease, ended, targets, now.s, deadline)
        self.pending.append(pending)
        return [Control(run.name, {"time_ns": now.ns, **line}), *self.broadcast(run, now), *self.answered(run, now)]

    def broadcast(self, run: Run, now: Moment) -> list[Action]:
        """Send the desired state to everybody in the run."""
        settings = run.settings(now)
        return [
            Send(peer.connection, settings)
            for peer in run.peers.values()
            if peer.connection is not None and not peer.recovering
        ]

    def answered(self, run: Run, now: Moment) -> list[Action]:
        """A rank of *run* has answered: report what is complete."""
        actions: list[Action] = []
        for pending in [pending for pending in self.pending if pending.run is run]:
            if all(peer.revision >= pending.revision or not peer.is_open for peer in pending.targets):
                actions += self._report(pending, now)
        return actions

    def _report(self, pending: _Pending, now: Moment) -> list[Action]:
        self.pending.remove(pending)
        run, lease = pending.run, pending.lease
        kinds: dict[str, dict[int, str]] = {"applied": {}, "ignored": {}, "failed": {}, "silent": {}}
        for peer in pending.targets:
            assert peer.rank is not None
            if peer.revision < pending.revision:
                kind, reason = "silent", ""
            elif lease is None:
                kind, reason = "applied", ""
            else:
                kind, reason = peer.answers.get(lease.revision, ("failed", "it gave no answer about this lease"))
            kinds[kind if kind in kinds else "failed"][peer.rank] = reason
        until = lease.ends_ns if lease is not None else None
        data: dict[str, Any] = {
            "run": run.name,
            "revision": lease.revision if lease is not None else run.revision,
            "until_ns": until,
            "ended": [old.revision for old in pending.ended],
            "applied": str(RankSet.of(kinds["applied"])),
            "ignored": {str(rank): why for rank, why in sorted(kinds["ignored"].items())},
            "failed": {str(rank): why for rank, why in sorted(kinds["failed"].items())},
            "silent": str(RankSet.of(kinds["silent"])),
            "took_ms": round((now.s - pending.began_s) * 1000, 1),
        }
        line = {"time_ns": now.ns, "event": "answers", **data}
        actions: list[Action] = [Control(run.name, line)]
        error = ""
        if lease is not None and kinds["failed"] and not (kinds["applied"] or kinds["ignored"] or kinds["silent"]):
            # Nobody could: what holds nowhere must not wait for a rank where it suddenly would.
            run.end_leases([lease.revision])
            error = _first_reason(kinds["failed"]) + "; nothing was changed"
            withdrawn = {"event": "withdrawn", "revision": run.revision, "ends": [lease.revision]}
            actions += [Control(run.name, {"time_ns": now.ns, **withdrawn}), *self.broadcast(run, now)]
        return [*actions, Send(pending.connection, Report(pending.number, error, data))]

    # Time.

    def tick(self, now: Moment) -> list[Action]:
        """Report changes whose time for answers is over; tell followers what is new."""
        actions: list[Action] = []
        for pending in [pending for pending in self.pending if pending.deadline_s <= now.s]:
            actions += self._report(pending, now)
        for connection, name in self.followers.items():
            actions += self._news(connection, self._followed(name), now)
        return actions

    def is_followed(self, run: str) -> bool:
        """Whether somebody waits for records of *run*."""
        return any(found.name == run for name in self.followers.values() for found in self._followed(name))

    def _followed(self, name: str | None) -> Iterable[Run]:
        if name == EVERY_RUN:
            return self.hub.runs.values()
        run = self._choose(name)
        return [] if isinstance(run, str) else [run]

    def _news(self, connection: bytes, runs: Iterable[Run], now: Moment) -> list[Action]:
        actions: list[Action] = []
        for run in runs:
            if not run.is_open:
                continue
            late = [peer for peer in run.peers.values() if peer.is_late(now.s, run.period_s)]
            news = (sum(peer.records for peer in run.peers.values()), run.horizon_ns(late), run.is_live)
            if self._told.get((connection, run.name)) != news:
                self._told[connection, run.name] = news
                actions.append(Tell(connection, run.name, news[1], news[2]))
        return actions


def _covers(lease: Lease, peer: Peer) -> bool:
    return lease.covers(peer.rank, peer.info.origin.host)


def _scope(lease: Lease) -> str:
    return f"ranks {lease.ranks}" + (f", hosts {lease.hosts}" if lease.hosts else "")


def _first_reason(failed: Mapping[int, str]) -> str:
    reasons = sorted(set(failed.values()))
    return reasons[0] if len(reasons) == 1 else f"{reasons[0]} (and {len(reasons) - 1} other reasons)"


def rank_row(peer: Peer, now: Moment, period_s: float) -> dict[str, Any]:
    """A rank as `tlogs ranks --json` shows it."""
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
    if peer.duplicate:
        row["duplicate"] = True
    if peer.info.end == "gone" and peer.info.origin.outbox:
        row["outbox"] = peer.info.origin.outbox
    return row


def lease_row(lease: Lease, now: Moment) -> dict[str, Any]:
    """A lease as `tlogs levels --json` shows it."""
    left = None if lease.ends_ns is None else max(0.0, (lease.ends_ns - now.ns) / 1e9)
    return replace(lease, ttl_s=left).as_map()
