"""Every decision of the collector: who is admitted, what is stored, what is answered. No socket, no clock, no disk.

Theory of operation
-------------------
Events come in (`handle`, `opened`, `stored`, `tick`, …), actions go out; the server carries them out and reports the
outcome as further events. The hub itself handles what streams send; its parts, each knowing only those before it:

- `Admission`: the connections, and which streams are sent over each.
- `Runs`: which run a stream belongs to, and which one an operator means.
- `Changes`: leases, and the rounds of answers to them.
- `Followers`: who is told about new records.
- `Pacing`: how often ranks report and how much they may send.
- `Departures`: streams that end.
- `Conclusions`: runs that are over.
- `Arrivals`: streams that say hello.
- `Questions`: operators.

A stream is a peer of a run for as long as the run is kept; it outlives its connections. A batch is acknowledged when
the store says that it is safe, not when it is taken. What a message costs does not grow with the number of ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from typing import Any, Final

from tlogs_collector.hub.actions import Action, Append, PutStream, Say, Send
from tlogs_collector.hub.admission import Admission, Connection
from tlogs_collector.hub.arrivals import Arrivals, Stored
from tlogs_collector.hub.changes import Changes
from tlogs_collector.hub.conclusions import Conclusions
from tlogs_collector.hub.departures import Departures
from tlogs_collector.hub.followers import Followers
from tlogs_collector.hub.pacing import AGE_S, PERIOD_S, Pacing
from tlogs_collector.hub.peer import Peer, Verdict
from tlogs_collector.hub.questions import Questions
from tlogs_collector.hub.run import Run
from tlogs_collector.hub.runs import Known, Runs
from tlogs_shared.origin import Origin
from tlogs_shared.protocol.clock import Moment
from tlogs_shared.protocol.messages import (
    Ack,
    Applied,
    Ask,
    Batch,
    Beat,
    Bye,
    Change,
    Fetch,
    Follow,
    Heartbeat,
    Hello,
    Message,
    Rewind,
    Stranger,
)
from tlogs_shared.storage.batch import Header

__all__ = ["Hub", "Known"]

LOOKS_PER_PERIOD: Final = 8
"""How often, between two heartbeats, missing streams are looked for; each look visits every stream that may send."""

SWEEP_S: Final = 5.0
"""Time between two searches for connections that nobody uses."""


@dataclass(slots=True)
class Hub:
    """The collector's whole state.

    `only_run` is the run that everything goes into (``--run``); `new_name` gives a name for a run; `is_alive` tells
    whether a process on this host lives (None where that cannot be known); `instance` names this life of the
    collector.
    """

    new_name: InitVar[Callable[[], str]]
    is_alive: InitVar[Callable[[Origin], bool | None]]
    boot_id: str = ""
    instance: str = ""
    only_run: InitVar[str | None] = None
    known: InitVar[Sequence[Known]] = ()
    admission: Admission = field(init=False)
    changes: Changes = field(init=False)
    followers: Followers = field(init=False)
    pacing: Pacing = field(init=False)
    departures: Departures = field(init=False)
    conclusions: Conclusions = field(init=False)
    arrivals: Arrivals = field(init=False)
    questions: Questions = field(init=False)
    _swept_s: float = 0.0
    _now_s: float = 0.0

    def __post_init__(
        self,
        new_name: Callable[[], str],
        is_alive: Callable[[Origin], bool | None],
        only_run: str | None,
        known: Sequence[Known],
    ) -> None:
        runs = Runs(new_name, is_alive, only_run, list(known))
        self.admission = Admission()
        self.changes = Changes(runs)
        self.followers = Followers(runs)
        self.pacing = Pacing(self.admission, self.followers)
        self.departures = Departures(runs, self.admission, self.changes)
        self.conclusions = Conclusions()
        self.arrivals = Arrivals(
            runs, self.admission, self.departures, self.pacing, self.conclusions, instance=self.instance
        )
        self.questions = Questions(runs, self.admission, self.changes, self.followers, self.instance)

    @property
    def runs(self) -> dict[str, Run]:
        """The runs that were opened here, by name."""
        return self.arrivals.runs.by_name

    # Messages.

    def handle(self, connection: bytes, message: Message, now: Moment) -> list[Action]:
        """Handle a message from a connection."""
        self._now_s = now.s
        known = self.admission.connections.get(connection)
        if known is None:
            if not isinstance(message, Hello | Ask):
                return [Send(connection, Stranger())]
            known = self.admission.meet(connection, now.s)
        if known.is_deaf:
            return []
        known.heard_s = now.s
        match message:
            case Batch():
                peer = known.peers.get(message.header.stream)
                return _unknown(connection, message.header.stream) if peer is None else self._batch(peer, message, now)
            case Heartbeat():
                return self._heartbeat(connection, known, message, now)
            case Applied():
                return self._applied(known, message, now)
            case Bye():
                peer = known.peers.get(message.stream)
                return _unknown(connection, message.stream) if peer is None else self._bye(peer, message, now)
            case Hello():
                return self.arrivals.hello(connection, message, now)
            case Ask() | Change() | Follow() | Fetch():
                return self.questions.handle(connection, message, now)
            case _:
                return self.broken(connection, "protocol", f"a {type(message).__name__}, which only a collector sends")

    def broken(self, connection: bytes, code: str, text: str) -> list[Action]:
        """A connection broke the protocol: refuse that, count it, and after a few of them ignore the connection."""
        return self.admission.broken(connection, code, text, self._now_s)

    def unreachable(self, connection: bytes) -> None:
        """The connection is gone; its streams say hello on another if they live."""
        self.admission.forget(connection)
        self.followers.forget(connection)

    def opened(
        self, name: str, streams: Mapping[bytes, Stored], control: Sequence[Mapping[str, Any]], now: Moment
    ) -> list[Action]:
        """The store has opened a run, with the streams that it held already."""
        return self.arrivals.opened(name, streams, control, now)

    def unopened(self, name: str, why: str) -> list[Action]:
        """The store could not open the run: tell the streams that wait for it."""
        return self.arrivals.unopened(name, why)

    # Streams.

    def _batch(self, peer: Peer, message: Batch, now: Moment) -> list[Action]:
        peer.heard_s = now.s
        run = self.runs[peer.run]
        if run.stalled or peer.connection is None:
            return []
        lost = peer.info.lost
        match peer.judge(message.header):
            case Verdict.TAKE:
                run.taken += 1
                taken = Append(peer.run, message.header, message.payload)
                return [taken] if peer.info.lost == lost else [PutStream(peer.run, peer.stream, peer.info), taken]
            case Verdict.HAVE:
                return [Send(peer.connection, Ack([(peer.stream, peer.stored)], self.pacing.window()))]
            case Verdict.REWIND:
                return [Send(peer.connection, Rewind(peer.stream, peer.watermark))]
            case Verdict.IGNORE:
                return []

    def _heartbeat(self, connection: bytes, known: Connection, message: Heartbeat, now: Moment) -> list[Action]:
        actions: list[Action] = []
        runs: dict[str, Run] = {}
        behind: set[str] = set()
        for pulse in message.rows:
            peer = known.peers.get(pulse.stream)
            if peer is None:
                actions += _unknown(connection, pulse.stream)
                continue
            peer.heard_s = now.s
            run = runs[peer.run] = self.runs[peer.run]
            same_host = peer.info.origin.boot_id == self.boot_id != ""
            if peer.beat(pulse, None if same_host else (message.offset_ns, message.bound_ns)):
                actions.append(PutStream(run.name, peer.stream, peer.info))
            if not peer.recovering and not (pulse.revision == peer.answered == run.revision):
                behind.add(run.name)  # it missed them, or its answer was lost
        period_s = max((run.period_s for run in runs.values()), default=PERIOD_S)
        age_s = max((run.age_s for run in runs.values()), default=AGE_S)
        beat = Send(connection, Beat(message.sent_ns, now.ns, now.ns, period_s, age_s))
        return [beat, *actions, *(Send(connection, runs[name].settings(now)) for name in behind)]

    def _applied(self, known: Connection, message: Applied, now: Moment) -> list[Action]:
        actions: list[Action] = []
        for row in message.rows:
            for stream in row.streams:
                if (peer := known.peers.get(stream)) is not None:
                    peer.applied(row)
                    actions += self.changes.answered(peer, now)
        return actions

    def _bye(self, peer: Peer, message: Bye, now: Moment) -> list[Action]:
        connection, ack = peer.connection, Ack([(peer.stream, peer.stored)], self.pacing.window())
        actions = self.departures.bye(peer, message, now)
        return actions if connection is None else [*actions, Send(connection, ack)]

    # The store.

    def stored(self, watermarks: Mapping[tuple[str, bytes], int]) -> list[Action]:
        """Acknowledge what the store has made safe: for each stream, all numbers below the given one."""
        rows: dict[bytes, list[tuple[bytes, int]]] = {}
        for (run, stream), watermark in watermarks.items():
            peer = self.runs[run].peers[stream]
            peer.stored = max(peer.stored, watermark)
            if peer.connection is not None:
                rows.setdefault(peer.connection, []).append((stream, peer.stored))
        window = self.pacing.window()
        return [Send(connection, Ack(stored, window)) for connection, stored in rows.items()]

    def unstored(self, run: str, header: Header, why: str) -> list[Action]:
        """The store refused a batch: take it back; the ranks keep what is not acknowledged and send it again."""
        self.runs[run].peers[header.stream].untake(header)
        return [Say(f"run {run}: cannot store: {why}; the ranks keep their records and wait")]

    def stall(self, run: str, why: str) -> None:
        """The store refuses this run at present: discard its batches, unacknowledged."""
        self.runs[run].stalled = why

    def resume(self, run: str) -> list[Action]:
        """The store accepts this run again: every stream goes on from its watermark."""
        found = self.runs[run]
        found.stalled = ""
        actions: list[Action] = [Say(f"run {run}: storing again")]
        for peer in found.peers.values():
            actions.append(PutStream(run, peer.stream, peer.info))
            if peer.connection is not None:
                actions.append(Send(peer.connection, Rewind(peer.stream, peer.watermark)))
        return actions

    def reopened(self, run: str, streams: Mapping[bytes, Stored]) -> list[Action]:
        """After a failed sync the store has been read again: go back to what it really holds."""
        self.runs[run].taken += 1
        for peer in self.runs[run].peers.values():
            stored = streams.get(peer.stream)
            peer.go_back(*((0, 0) if stored is None else (stored.watermark, stored.records)))
        return self.resume(run)

    # Time.

    def tick(self, now: Moment) -> list[Action]:
        """Do what is due; *now* must not be later than the last message that waits to be read."""
        self._now_s = now.s
        actions: list[Action] = []
        for run in self.runs.values():
            if run.live:
                self.pacing.adjust(run)
                if now.s >= run.look_due_s:
                    period_s = max(run.period_s, PERIOD_S)
                    run.look_due_s = now.s + period_s / LOOKS_PER_PERIOD
                    actions += self.departures.look(run, period_s, now)
            if run.is_open:
                actions += self.conclusions.look(run, now)
        if now.s - self._swept_s >= SWEEP_S:
            self._swept_s = now.s
            for connection in self.admission.stale(now.s, self.questions.is_waiting):
                self.unreachable(connection)
        return actions + self.tick_operators(now)

    def tick_operators(self, now: Moment) -> list[Action]:
        """The part of `tick` that may run while messages wait: what operators are to be told by now."""
        return self.questions.tick(now)

    # The end.

    def stop(self) -> None:
        """Refuse new streams from here on; those that are here may finish."""
        self.arrivals.closing = True

    @property
    def is_idle(self) -> bool:
        """Whether no stream may still send anything."""
        return not any(run.is_live for run in self.runs.values()) and self.arrivals.is_empty

    def closing_lines(self) -> list[str]:
        """One line a run, in the order in which they began."""
        return [run.closing_line() for run in self._begun()]

    def last_words(self) -> list[str]:
        """Runs that have not ended, and how those did of which that has not been said yet."""
        return [text for run in self._begun() if (text := self.conclusions.at_the_end(run)) is not None]

    def _begun(self) -> list[Run]:
        return sorted((run for run in self.runs.values() if run.peers), key=lambda run: run.created_ns)


def _unknown(connection: bytes, stream: bytes) -> list[Action]:
    """A message of a stream that did not say hello on this connection."""
    return [Send(connection, Stranger(stream))]
