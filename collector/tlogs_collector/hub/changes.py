"""Changes of levels: leases that operators ask for or end, and what each rank answered. Pure, as the hub is.

A change is reported when every rank in scope has answered or ended, or when the time for it is over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tlogs_collector.hub.actions import Action, Control, Send
from tlogs_collector.hub.peer import Peer
from tlogs_collector.hub.run import Run
from tlogs_collector.hub.runs import Runs
from tlogs_shared.errors import MessageError
from tlogs_shared.protocol.clock import Moment
from tlogs_shared.protocol.lease import Lease
from tlogs_shared.protocol.messages import Change, Report
from tlogs_shared.rankset import RankSet

__all__ = ["Changes"]

MAX_TIMEOUT_S: Final = 600.0

MAX_LEASES: Final = 256
"""In force in one run at a time: every rank keeps every lease, and is sent all of them."""

MAX_ONCE: Final = 256
"""Calls from inside a job that are remembered, so that the same call from its slowest rank is known as such."""


@dataclass(slots=True, eq=False)
class _Awaited:
    """A change whose answers are awaited; `report` once they are in."""

    run: Run
    revision: int
    lease: Lease | None
    displaced: Lease | None
    ended: Sequence[Lease]
    targets: dict[bytes, tuple[int, Peer]]
    missing: set[bytes]
    askers: list[tuple[bytes, int]]
    began_s: float
    deadline_s: float
    report: tuple[str, dict[str, Any]] | None = None


@dataclass(slots=True)
class Changes:
    """The changes that were asked for and have not been reported yet."""

    runs: Runs
    _awaited: list[_Awaited] = field(default_factory=list)
    _once: dict[tuple[str, str], _Awaited] = field(default_factory=dict)

    def ask(self, connection: bytes, change: Change, run: Run, now: Moment) -> list[Action]:
        """Lay a lease over *run*, or end some."""
        found = self._lay(change, run, now) if change.lease is not None else self._end(change, run, now)
        if isinstance(found, str):
            return [Send(connection, Report(change.number, found, None))]
        awaited, actions = found
        if awaited.report is not None:
            return [*actions, Send(connection, Report(change.number, *awaited.report))]
        awaited.askers.append((connection, change.number))
        return [*actions, *self._settle(awaited, now)]

    def _lay(self, change: Change, run: Run, now: Moment) -> tuple[_Awaited, list[Action]] | str:
        once = (run.name, change.once)
        if change.once and once in self._once:
            return self._once[once], []
        try:
            lease = Lease.from_map(change.lease)
        except MessageError as error:
            return str(error)
        targets = run.in_scope(lease)
        if not targets:
            return _out_of_scope(lease, run)
        before = run.in_force(now)
        if len(before) >= MAX_LEASES:
            return f"{len(before)} leases are in force, which is the most; end some with: tlogs reset"
        before = list(run.leases)
        lease = run.lease(lease, now)
        displaced = next((old for old in before if old not in run.leases), None)
        awaited = self._await(change, run, targets, now, lease=lease, displaced=displaced)
        if change.once:
            if len(self._once) >= MAX_ONCE:
                del self._once[next(iter(self._once))]
            self._once[once] = awaited
        line = {"event": "lease", "revision": lease.revision, "lease": lease.as_map()}
        return awaited, [Control(run.name, {"time_ns": now.ns, **line}), *broadcast(run, now)]

    def _end(self, change: Change, run: Run, now: Moment) -> tuple[_Awaited, list[Action]] | str:
        ended = run.end_leases(change.ends or [])
        if change.ends and not ended:
            return _not_in_force(change.ends, run)
        if not ended:
            return self._await(change, run, [], now), []
        targets = [
            peer
            for peer in run.newest()
            if peer.is_open and any(old.covers(peer.rank, peer.info.origin.host) for old in ended)
        ]
        awaited = self._await(change, run, targets, now, ended=ended)
        ends = [old.revision for old in ended]
        line = {"event": "reset", "revision": run.revision, "ends": ends, "author": change.author}
        return awaited, [Control(run.name, {"time_ns": now.ns, **line}), *broadcast(run, now)]

    def _await(
        self,
        change: Change,
        run: Run,
        targets: Sequence[Peer],
        now: Moment,
        *,
        lease: Lease | None = None,
        displaced: Lease | None = None,
        ended: Sequence[Lease] = (),
    ) -> _Awaited:
        awaited = _Awaited(
            run,
            run.revision,
            lease,
            displaced,
            ended,
            {peer.stream: (peer.rank, peer) for peer in targets if peer.rank is not None},
            {peer.stream for peer in targets},
            [],
            now.s,
            now.s + min(max(change.timeout_s, 0.0), MAX_TIMEOUT_S),
        )
        self._awaited.append(awaited)
        return awaited

    # Answers.

    def answered(self, peer: Peer, now: Moment) -> list[Action]:
        """A rank has answered, or has ended: report what is complete."""
        actions: list[Action] = []
        for awaited in list(self._awaited):
            if awaited.run.name == peer.run and (peer.answered >= awaited.revision or not peer.is_open):
                awaited.missing.discard(peer.stream)
                actions += self._settle(awaited, now)
        return actions

    def tick(self, now: Moment) -> list[Action]:
        """Report changes whose deadline has passed, and end leases."""
        actions: list[Action] = []
        for awaited in list(self._awaited):
            if awaited.deadline_s <= now.s:
                actions += self._report(awaited, now)
        for run in self.runs.by_name.values():
            if ended := run.expire(now):
                ends = [lease.revision for lease in ended]
                actions.append(Control(run.name, {"time_ns": now.ns, "event": "expired", "ends": ends}))
        return actions

    def is_awaited_by(self, connection: bytes) -> bool:
        """Whether a report is on its way to this operator."""
        return any(connection == asker for awaited in self._awaited for asker, _ in awaited.askers)

    def _settle(self, awaited: _Awaited, now: Moment) -> list[Action]:
        return [] if awaited.missing else self._report(awaited, now)

    def _report(self, awaited: _Awaited, now: Moment) -> list[Action]:
        self._awaited.remove(awaited)
        run, lease = awaited.run, awaited.lease
        kinds: dict[str, dict[int, str]] = {"applied": {}, "ignored": {}, "failed": {}, "silent": {}}
        for rank, peer in awaited.targets.values():
            kind, reason = _answer(peer, awaited)
            kinds[kind][rank] = reason
        data: dict[str, Any] = {
            "run": run.name,
            "revision": awaited.revision,
            "until_ns": None if lease is None else lease.ends_ns,
            "ended": [old.revision for old in awaited.ended],
            "applied": str(RankSet.of(kinds["applied"])),
            "ignored": {str(rank): why for rank, why in sorted(kinds["ignored"].items())},
            "failed": {str(rank): why for rank, why in sorted(kinds["failed"].items())},
            "silent": str(RankSet.of(kinds["silent"])),
            "took_ms": round((now.s - awaited.began_s) * 1000, 1),
        }
        actions: list[Action] = [Control(run.name, {"time_ns": now.ns, "event": "answers", **data})]
        error = ""
        if lease is not None and all(_fails(peer, lease) for _, peer in awaited.targets.values()):
            # Nobody could: what holds nowhere must not wait for a rank where it suddenly would. Ranks that ended
            # before they answered are another matter: they may come again.
            error = _first_reason(kinds["failed"]) + "; nothing was changed"
            actions += _withdraw(run, lease, awaited.displaced, now)
        actions += [Send(connection, Report(number, error, data)) for connection, number in awaited.askers]
        awaited.report, awaited.targets, awaited.askers = (error, data), {}, []
        return actions


def broadcast(run: Run, now: Moment) -> list[Action]:
    """Send the desired state to everybody in the run."""
    settings = run.settings(now)
    return [
        Send(peer.connection, settings)
        for peer in run.peers.values()
        if peer.connection is not None and not peer.recovering
    ]


def _withdraw(run: Run, lease: Lease, displaced: Lease | None, now: Moment) -> list[Action]:
    if lease not in run.leases:
        return []  # it was ended or replaced meanwhile
    run.withdraw(lease, displaced)
    line: dict[str, Any] = {"event": "withdrawn", "revision": run.revision, "ends": [lease.revision]}
    if displaced is not None:
        line["returns"] = displaced.revision
    return [Control(run.name, {"time_ns": now.ns, **line}), *broadcast(run, now)]


def _out_of_scope(lease: Lease, run: Run) -> str:
    if not lease.ranks:
        return "the rank set is empty: nothing to change"
    scope = "" if lease.ranks == RankSet.all() else f" {lease.ranks}"
    plural = "s" if not lease.ranks.complement and len(lease.ranks) > 1 else ""
    where = f" on hosts {lease.hosts}" if lease.hosts else ""
    live = RankSet.of(peer.rank for peer in run.newest() if peer.is_open and peer.rank is not None)
    return f"no live rank{plural}{scope}{where} in run {run.name}; " + (f"live: {live}" if live else "no rank is live")


def _not_in_force(revisions: Sequence[int], run: Run) -> str:
    asked = ", ".join(map(str, revisions))
    there = ", ".join(str(lease.revision) for lease in run.leases)
    return f"no lease {asked} in force in run {run.name}; " + (f"in force: {there}" if there else "none is in force")


def _answer(peer: Peer, awaited: _Awaited) -> tuple[str, str]:
    """What became of a change on one rank."""
    if peer.answered < awaited.revision:
        return ("silent", "") if peer.is_open else ("failed", "it ended before it answered")
    if awaited.lease is None:
        return "applied", ""
    kind, reason = peer.answers.get(awaited.lease.revision, ("", ""))
    if kind in ("applied", "ignored", "failed"):
        return kind, reason
    if awaited.lease not in awaited.run.leases:
        return "failed", "the lease was ended or replaced meanwhile"
    return "failed", "it gave no answer about this lease"


def _fails(peer: Peer, lease: Lease) -> bool:
    """Whether a rank says itself that it could not."""
    return peer.answers.get(lease.revision, ("", ""))[0] == "failed"


def _first_reason(failed: Mapping[int, str]) -> str:
    reasons = sorted(set(failed.values()))
    return reasons[0] if len(reasons) == 1 else f"{reasons[0]} (and {len(reasons) - 1} other reasons)"
