"""Changes of levels: leases that operators ask for or end, and what each rank answered. Pure.

A change is reported when its round is over: every rank in scope has answered or ended, or the deadline has passed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tlogs_collector.hub.actions import Action, Control, Send
from tlogs_collector.hub.peer import Peer
from tlogs_collector.hub.rounds import Round, Rounds
from tlogs_collector.hub.run import Run
from tlogs_collector.hub.runs import Runs
from tlogs_shared.errors import MessageError
from tlogs_shared.protocol.clock import Moment
from tlogs_shared.protocol.lease import Lease
from tlogs_shared.protocol.messages import Change, Report
from tlogs_shared.protocol.rows import ChangeReport
from tlogs_shared.rankset import RankSet

__all__ = ["Changes"]

MAX_LEASES: Final = 256
"""In force in one run at a time: every rank keeps every lease, and is sent all of them."""

MAX_ONCE: Final = 256
"""Calls from inside a job that are remembered, so that the same call from its slowest rank is known as such."""


@dataclass(slots=True, eq=False)
class _Change:
    """What was changed in a run; `report` once the round is over."""

    run: Run
    revision: int
    lease: Lease | None = None
    displaced: Lease | None = None
    ended: Sequence[Lease] = ()
    report: tuple[str, ChangeReport] | None = None


@dataclass(slots=True)
class Changes:
    """The changes that were asked for, and the rounds that wait for their answers."""

    runs: Runs
    _rounds: Rounds[_Change] = field(default_factory=Rounds)
    _once: dict[tuple[str, str], Round[_Change]] = field(default_factory=dict)

    def ask(self, connection: bytes, change: Change, run: Run, now: Moment) -> list[Action]:
        """Add a lease to *run*, or end some."""
        found = self._lay(change, run, now) if change.lease is not None else self._end(change, run, now)
        if isinstance(found, str):
            return [Send(connection, Report(change.number, found, None))]
        begun, actions = found
        if begun.request.report is not None:
            return [*actions, Send(connection, Report(change.number, *begun.request.report))]
        begun.askers.append((connection, change.number))
        return [*actions, *self._report(self._rounds.complete(), now)]

    def _lay(self, change: Change, run: Run, now: Moment) -> tuple[Round[_Change], list[Action]] | str:
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
        in_force = run.in_force(now)
        if len(in_force) >= MAX_LEASES:
            return f"{len(in_force)} leases are in force, which is the most; end some with: tlogs reset"
        before = list(run.leases)
        lease = run.lease(lease, now)
        displaced = next((old for old in before if old not in run.leases), None)
        made = _Change(run, run.revision, lease=lease, displaced=displaced)
        begun = self._rounds.begin(made, run.name, targets, now, change.timeout_s)
        if change.once:
            if len(self._once) >= MAX_ONCE:
                del self._once[next(iter(self._once))]
            self._once[once] = begun
        line = {"event": "lease", "revision": lease.revision, "lease": lease.as_map()}
        return begun, [Control(run.name, {"time_ns": now.ns, **line}), *_broadcast(run, now)]

    def _end(self, change: Change, run: Run, now: Moment) -> tuple[Round[_Change], list[Action]] | str:
        ended = run.end_leases(change.ends or [])
        if change.ends and not ended:
            return _not_in_force(change.ends, run)
        if not ended:
            return self._rounds.begin(_Change(run, run.revision), run.name, [], now, change.timeout_s), []
        targets = [
            peer
            for peer in run.newest()
            if peer.is_open and any(old.covers(peer.rank, peer.info.origin.host) for old in ended)
        ]
        made = _Change(run, run.revision, ended=ended)
        begun = self._rounds.begin(made, run.name, targets, now, change.timeout_s)
        ends = [old.revision for old in ended]
        line = {"event": "reset", "revision": run.revision, "ends": ends, "author": change.author}
        return begun, [Control(run.name, {"time_ns": now.ns, **line}), *_broadcast(run, now)]

    # Answers.

    def answered(self, peer: Peer, now: Moment) -> list[Action]:
        """A rank has answered, or has ended: report what is complete."""
        return self._report(self._rounds.answered(peer, lambda change: peer.answered >= change.revision), now)

    def tick(self, now: Moment) -> list[Action]:
        """Report changes whose deadline has passed, and end leases."""
        actions = self._report(self._rounds.overdue(now), now)
        for run in self.runs.by_name.values():
            if ended := run.expire(now):
                ends = [lease.revision for lease in ended]
                actions.append(Control(run.name, {"time_ns": now.ns, "event": "expired", "ends": ends}))
        return actions

    def is_awaited_by(self, connection: bytes) -> bool:
        """Whether this operator waits for a report."""
        return self._rounds.is_awaited_by(connection)

    def _report(self, over: Sequence[Round[_Change]], now: Moment) -> list[Action]:
        return [action for one in over for action in _report(one, now)]


def _report(over: Round[_Change], now: Moment) -> list[Action]:
    """Report a round that is over to everybody who asked, and into the journal."""
    change = over.request
    run, lease = change.run, change.lease
    kinds: dict[str, dict[int, str]] = {"applied": {}, "ignored": {}, "failed": {}, "silent": {}}
    for rank, peer in over.targets:
        kind, reason = _answer(peer, change)
        kinds[kind][rank] = reason
    data = ChangeReport(
        run=run.name,
        revision=change.revision,
        until_ns=None if lease is None else lease.ends_ns,
        ended=[old.revision for old in change.ended],
        applied=str(RankSet.of(kinds["applied"])),
        ignored={str(rank): why for rank, why in sorted(kinds["ignored"].items())},
        failed={str(rank): why for rank, why in sorted(kinds["failed"].items())},
        silent=str(RankSet.of(kinds["silent"])),
        took_ms=over.took_ms(now),
    )
    actions: list[Action] = [Control(run.name, {"time_ns": now.ns, "event": "answers", **data})]
    error = ""
    if lease is not None and all(_fails(peer, lease) for _, peer in over.targets):
        # Nobody could: what is applied nowhere must not wait for a rank where it suddenly would be. Ranks that ended
        # before they answered are another matter: they may come again.
        error = _first_reason(kinds["failed"]) + "; nothing was changed"
        actions += _withdraw(run, lease, change.displaced, now)
    actions += [Send(connection, Report(number, error, data)) for connection, number in over.askers]
    change.report = (error, data)
    over.targets.clear()  # the round itself is kept for the same call from slower ranks
    return actions


def _broadcast(run: Run, now: Moment) -> list[Action]:
    """Send the desired state to everybody in the run, once a host."""
    settings = run.settings(now)
    senders = (peer for peer in run.speaking.values() if not peer.recovering)
    connections = dict.fromkeys(peer.connection for peer in senders if peer.connection is not None)
    return [Send(connection, settings) for connection in connections]


def _withdraw(run: Run, lease: Lease, displaced: Lease | None, now: Moment) -> list[Action]:
    if lease not in run.leases:
        return []  # it was ended or replaced meanwhile
    run.withdraw(lease, displaced)
    line: dict[str, Any] = {"event": "withdrawn", "revision": run.revision, "ends": [lease.revision]}
    if displaced is not None:
        line["returns"] = displaced.revision
    return [Control(run.name, {"time_ns": now.ns, **line}), *_broadcast(run, now)]


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


def _answer(peer: Peer, change: _Change) -> tuple[str, str]:
    """What became of a change on one rank."""
    if peer.answered < change.revision:
        return ("silent", "") if peer.is_open else ("failed", "it ended before it answered")
    if change.lease is None:
        return "applied", ""
    kind, reason = peer.answers.get(change.lease.revision, ("", ""))
    if kind in ("applied", "ignored", "failed"):
        return kind, reason
    if change.lease not in change.run.leases:
        return "failed", "the lease was ended or replaced meanwhile"
    return "failed", "it gave no answer about this lease"


def _fails(peer: Peer, lease: Lease) -> bool:
    """Whether a rank says itself that it could not."""
    return peer.answers.get(lease.revision, ("", ""))[0] == "failed"


def _first_reason(failed: Mapping[int, str]) -> str:
    reasons = sorted(set(failed.values()))
    return reasons[0] if len(reasons) == 1 else f"{reasons[0]} (and {len(reasons) - 1} other reasons)"
