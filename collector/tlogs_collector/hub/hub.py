"""Every decision of the collector: who is admitted, what is stored, what is answered. No socket, no clock, no disk.

Theory of operation
-------------------
Events come in (`handle`, `opened`, `stored`, `tick`, …), actions go out; the server carries them out and reports the
outcome as further events. The hub itself handles what streams send; its parts, each knowing only those before it:

- `Admission`: connections, and the proof of the secret.
- `Runs`: which run a stream belongs to, and which one an operator means.
- `Changes`: leases, and the rounds of answers to them.
- `Followers`: who is told about new records.
- `Pacing`: how often ranks report and how much they may send.
- `Departures`: streams that end.
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
from tlogs_collector.hub.admission import Admission
from tlogs_collector.hub.arrivals import Arrivals, Stored
from tlogs_collector.hub.changes import Changes
from tlogs_collector.hub.departures import Departures
from tlogs_collector.hub.followers import Followers
from tlogs_collector.hub.pacing import PERIOD_S, Pacing
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
    Proof,
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

    `only_run` is the run that everything goes into (``--run``); `token` gives random bytes, `new_name` a name for
    a run; `is_alive` tells whether a process on this host lives (None where that cannot be known).
    """

    secret: InitVar[bytes | None]
    token: InitVar[Callable[[int], bytes]]
    new_name: InitVar[Callable[[], str]]
    is_alive: InitVar[Callable[[Origin], bool | None]]
    boot_id: str = ""
    only_run: InitVar[str | None] = None
    known: InitVar[Sequence[Known]] = ()
    admission: Admission = field(init=False)
    changes: Changes = field(init=False)
    followers: Followers = field(init=False)
    pacing: Pacing = field(init=False)
    departures: Departures = field(init=False)
    arrivals: Arrivals = field(init=False)
    questions: Questions = field(init=False)
    _swept_s: float = 0.0
    _now_s: float = 0.0

    def __post_init__(
        self,
        secret: bytes | None,
        token: Callable[[int], bytes],
        new_name: Callable[[], str],
        is_alive: Callable[[Origin], bool | None],
        only_run: str | None,
        known: Sequence[Known],
    ) -> None:
        runs = Runs(new_name, is_alive, only_run, list(known))
        self.admission = Admission(secret, token)
        self.changes = Changes(runs)
        self.followers = Followers(runs)
        self.pacing = Pacing(self.admission, self.followers)
        self.departures = Departures(runs, self.admission, self.changes)
        self.arrivals = Arrivals(runs, self.admission, self.departures, self.pacing)
        self.questions = Questions(runs, self.admission, self.changes, self.followers)

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
        if (peer := known.peer) is not None:
            peer.heard_s = now.s
            match message:
                case Batch():
                    return self._batch(connection, peer, message, now)
                case Heartbeat():
                    return self._heartbeat(connection, peer, message, now)
                case Applied():
                    peer.applied(message)
                    return self.changes.answered(peer, now)
                case Bye():
                    return self._bye(connection, peer, message, now)
                case _:
                    pass
        match message:
            case Proof():
                actions, waiting = self.admission.prove(connection, known, message)
                return actions if waiting is None else self._admitted(connection, waiting, now)
            case Hello() | Ask() if not known.admitted:
                challenge = self.admission.challenge(connection, known, message)
                return challenge or self._admitted(connection, message, now)
            case Hello() | Ask() | Change() | Follow() | Fetch() if known.admitted:
                return self._admitted(connection, message, now)
            case _:
                return [Send(connection, Stranger())]

    def _admitted(self, connection: bytes, message: Hello | Ask | Change | Follow | Fetch, now: Moment) -> list[Action]:
        if isinstance(message, Hello):
            return self.arrivals.hello(connection, message, now)
        return self.questions.handle(connection, message, now)

    def broken(self, connection: bytes, code: str, text: str) -> list[Action]:
        """A connection broke the protocol: refuse that, count it, and after a few of them ignore the connection."""
        return self.admission.broken(connection, code, text, self._now_s)

    def unreachable(self, connection: bytes) -> None:
        """The connection is gone; its stream says hello on another if it lives."""
        known = self.admission.forget(connection)
        if known is not None:
            known.part()
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

    def _batch(self, connection: bytes, peer: Peer, message: Batch, now: Moment) -> list[Action]:
        header = message.header
        if header.stream != peer.stream:
            return self.broken(connection, "protocol", "a batch of another stream than the one that said hello")
        run = self.runs[peer.run]
        if run.stalled:
            return []
        lost = peer.info.lost
        match peer.judge(header):
            case Verdict.TAKE:
                run.taken += 1
                taken = Append(peer.run, header, message.payload)
                return [taken] if peer.info.lost == lost else [PutStream(peer.run, peer.stream, peer.info), taken]
            case Verdict.HAVE:
                return [Send(connection, Ack(peer.stored, self.pacing.window()))]
            case Verdict.REWIND:
                return [Send(connection, Rewind(peer.watermark))]
            case Verdict.IGNORE:
                return []

    def _heartbeat(self, connection: bytes, peer: Peer, message: Heartbeat, now: Moment) -> list[Action]:
        run = self.runs[peer.run]
        changed = peer.beat(message, same_host=peer.info.origin.boot_id == self.boot_id != "")
        beat = Beat(message.sent_ns, now.ns, now.ns, run.period_s, run.age_s)
        actions: list[Action] = [Send(connection, beat)]
        if changed:
            actions.append(PutStream(run.name, peer.stream, peer.info))
        if not peer.recovering and not (message.revision == peer.answered == run.revision):
            actions.append(Send(connection, run.settings(now)))  # it missed them, or its answer was lost
        return actions

    def _bye(self, connection: bytes, peer: Peer, message: Bye, now: Moment) -> list[Action]:
        ack = Send(connection, Ack(peer.stored, self.pacing.window()))
        return [*self.departures.bye(peer, message, now), ack]

    # The store.

    def stored(self, watermarks: Mapping[tuple[str, bytes], int]) -> list[Action]:
        """Acknowledge what the store has made safe: for each stream, all numbers below the given one."""
        actions: list[Action] = []
        window = self.pacing.window()
        for (run, stream), watermark in watermarks.items():
            peer = self.runs[run].peers[stream]
            peer.stored = max(peer.stored, watermark)
            if peer.connection is not None:
                actions.append(Send(peer.connection, Ack(peer.stored, window)))
        return actions

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
                actions.append(Send(peer.connection, Rewind(peer.watermark)))
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
            if not run.live:
                continue
            self.pacing.adjust(run)
            if now.s >= run.look_due_s:
                run.look_due_s = now.s + run.period_s / LOOKS_PER_PERIOD
                actions += self.departures.look(run, max(run.period_s, PERIOD_S), now)
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
        return [run.closing_line() for run in sorted(self.runs.values(), key=lambda run: run.created_ns) if run.peers]
