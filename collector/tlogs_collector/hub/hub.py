"""Every decision of the collector: who may speak, what is taken, what is answered. No socket, no clock, no disk.

Theory of operation
-------------------
Events come in (`handle`, `opened`, `stored`, `tick`, …), actions go out; the server carries them out and reports
what came of them as further events. `Admission` decides who may speak, `Arrivals` which run a stream belongs to;
operators are served at the `Desk`. A stream is a peer of a run for as long as the run is kept; it
outlives its connections.

A batch is acknowledged when the store says that it is safe, not when it is taken. What a message costs does not grow
with the number of ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tlogs_collector.hub.actions import Action, Append, PutStream, Recover, Say, Send
from tlogs_collector.hub.admission import Admission
from tlogs_collector.hub.arrivals import Arrivals, Stored
from tlogs_collector.hub.peer import Peer, Verdict
from tlogs_collector.hub.questions import Desk
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

MAX_WINDOW: Final = 4 * 1024 * 1024
WINDOW_BUDGET: Final = 256 * 1024 * 1024
"""What all ranks together may have on the way: the collector's memory is bounded by it."""

MIN_WINDOW: Final = 64 * 1024

BEATS_PER_S: Final = 500
BATCHES_PER_S: Final = 5000
"""Beyond so many a second the ranks are asked to speak less often; the collector keeps room for their records."""

AGE_S: Final = 0.02
PERIOD_S: Final = 1.0
FOLLOWED_PERIOD_S: Final = 0.5
FOLLOWED_PEERS: Final = 64
"""Up to so many ranks heartbeats come faster while someone follows, so that merged output lags less."""

WATCHES_PER_PERIOD: Final = 8
"""Who is missing is looked for so often between two heartbeats; it takes a look at every stream."""

SWEEP_S: Final = 5.0
"""Connections that nobody uses are looked for so often."""


@dataclass(slots=True)
class Hub:
    """The collector's whole state.

    `only_run` is the run that everything goes into (``--run``); `token` gives random bytes, `new_name` a name for
    a run; `is_alive` tells whether a process on this host lives (None where that cannot be known).
    """

    secret: bytes | None
    token: Callable[[int], bytes]
    new_name: Callable[[], str]
    is_alive: Callable[[Origin], bool | None]
    boot_id: str = ""
    only_run: str | None = None
    known: list[Known] = field(default_factory=list)
    closing: bool = False
    admission: Admission = field(init=False)
    desk: Desk = field(init=False)
    arrivals: Arrivals = field(init=False)
    _swept_s: float = 0.0
    _now_s: float = 0.0

    def __post_init__(self) -> None:
        self.admission = Admission(self.secret, self.token)
        self.desk = Desk(self)
        self.arrivals = Arrivals(self, Runs(self.new_name, self.is_alive, self.only_run, list(self.known)))

    @property
    def runs(self) -> dict[str, Run]:
        """The runs that were opened here, by name."""
        return self.arrivals.runs.by_name

    # Messages.

    def handle(self, connection: bytes, message: Message, now: Moment) -> list[Action]:
        """What a message asks for."""
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
                    return self.desk.changes.answered(peer, now)
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
        return self.desk.handle(connection, message, now)

    def broken(self, connection: bytes, code: str, text: str) -> list[Action]:
        """This connection sent something that is no message: tell it, count it, and after some more be deaf to it."""
        return self.admission.broken(connection, code, text, self._now_s)

    def unreachable(self, connection: bytes) -> None:
        """The connection is gone; its stream says hello on another if it lives."""
        known = self.admission.forget(connection)
        if known is not None:
            known.part()
        self.desk.forget(connection)

    def opened(
        self, name: str, streams: Mapping[bytes, Stored], control: Sequence[Mapping[str, Any]], now: Moment
    ) -> list[Action]:
        """The store has opened a run, with the streams that it held already."""
        return self.arrivals.opened(name, streams, control, now)

    def unopened(self, name: str, why: str) -> list[Action]:
        """The store could not open the run: those who wait are told."""
        return self.arrivals.unopened(name, why)

    # Streams that speak.

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
                return [Send(connection, Ack(peer.stored, self.window()))]
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
        peer.info = replace(peer.info, head=max(peer.info.head, message.head), dropped=dict(message.dropped))
        ack = Send(connection, Ack(peer.stored, self.window()))
        if message.head > peer.watermark:
            # It could not wait for the rest, which lies in its outbox: once the process is gone, that is brought in.
            return [ack]
        self.runs[peer.run].end(peer, "recovered" if peer.recovering else "bye")
        self._leave(connection)
        return [PutStream(peer.run, peer.stream, peer.info), ack, *self.desk.changes.answered(peer, now)]

    def _leave(self, connection: bytes) -> None:
        if (known := self.admission.connections.get(connection)) is not None:
            known.part()

    # The store.

    def stored(self, watermarks: Mapping[tuple[str, bytes], int]) -> list[Action]:
        """These streams are safe up to these numbers: acknowledge."""
        actions: list[Action] = []
        window = self.window()
        for (run, stream), watermark in watermarks.items():
            peer = self.runs[run].peers[stream]
            peer.stored = max(peer.stored, watermark)
            if peer.connection is not None:
                actions.append(Send(peer.connection, Ack(peer.stored, window)))
        return actions

    def unstored(self, run: str, header: Header, why: str) -> list[Action]:
        """The store could not take a batch: acknowledge nothing more of this run until it can; the ranks keep all."""
        self.runs[run].peers[header.stream].untake(header)
        return [Say(f"run {run}: cannot store: {why}; the ranks keep their records and wait")]

    def stall(self, run: str, why: str) -> None:
        """The store takes nothing of this run at present: drop what comes, unacknowledged."""
        self.runs[run].stalled = why

    def resume(self, run: str) -> list[Action]:
        """The store takes batches again: everybody goes on from where it stands."""
        found = self.runs[run]
        found.stalled = ""
        actions: list[Action] = [Say(f"run {run}: storing again")]
        for peer in found.peers.values():
            actions.append(PutStream(run, peer.stream, peer.info))
            if peer.connection is not None:
                actions.append(Send(peer.connection, Rewind(peer.watermark)))
        return actions

    def reopened(self, run: str, streams: Mapping[bytes, Stored]) -> list[Action]:
        """After a failed sync the store has found out what it really has: go back to that."""
        self.runs[run].taken += 1
        for peer in self.runs[run].peers.values():
            stored = streams.get(peer.stream)
            peer.go_back(*((0, 0) if stored is None else (stored.watermark, stored.records)))
        return self.resume(run)

    # Time.

    def tick(self, now: Moment) -> list[Action]:
        """What the passing of time asks for; *now* must not be later than the last message that waits to be read."""
        self._now_s = now.s
        actions: list[Action] = []
        for run in self.runs.values():
            if not run.live:
                continue
            period = self.pace(run)
            if now.s >= run.watch_due_s:
                run.watch_due_s = now.s + period / WATCHES_PER_PERIOD
                actions += self._watch(run, max(period, PERIOD_S), now)
        if now.s - self._swept_s >= SWEEP_S:
            self._swept_s = now.s
            for connection in self.admission.stale(now.s, self.desk):
                self.unreachable(connection)
        return actions + self.desk.tick(now)

    def _watch(self, run: Run, period_s: float, now: Moment) -> list[Action]:
        """Look who is missing."""
        actions: list[Action] = []
        for peer in list(run.speaking.values()):
            if now.s - peer.heard_s < period_s:
                continue
            if self.is_alive(peer.info.origin) is False or (peer.connection is None and peer.is_lost(now.s, period_s)):
                actions += self.gone(run, peer, now)
            elif peer.is_lost(now.s, period_s) and peer.connection is not None:
                # It says hello if it can hear this; if nobody is connected there any more, sending fails and says so.
                actions.append(Send(peer.connection, Stranger()))
        return actions

    def gone(self, run: Run, peer: Peer, now: Moment) -> list[Action]:
        """This process has ended without a word; where it was on this host, bring in what it left."""
        if peer.connection is not None:
            self._leave(peer.connection)
        run.end(peer, "gone")
        actions: list[Action] = [PutStream(peer.run, peer.stream, peer.info)]
        if peer.info.origin.outbox and self.is_alive(peer.info.origin) is False:
            actions.append(Recover([peer.info.origin.outbox]))
        return [*actions, *self.desk.changes.answered(peer, now)]

    def pace(self, run: Run) -> float:
        """Set how old a record may become before it is sent, and the time between heartbeats; the latter."""
        followed = run.live <= FOLLOWED_PEERS and self.desk.is_followed(run.name)
        run.age_s = max(AGE_S, run.live / BATCHES_PER_S)
        run.period_s = max(FOLLOWED_PERIOD_S if followed else PERIOD_S, run.live / BEATS_PER_S)
        return run.period_s

    def window(self) -> int:
        """How many bytes one stream may have on the way."""
        return max(MIN_WINDOW, min(MAX_WINDOW, WINDOW_BUDGET // max(1, len(self.admission.connections))))

    # The end.

    def stop(self) -> None:
        """No new streams from here on; those that are here may finish."""
        self.closing = True

    @property
    def is_idle(self) -> bool:
        """Whether nobody is here who may still speak."""
        return not any(run.is_live for run in self.runs.values()) and self.arrivals.is_empty

    def closing_lines(self) -> list[str]:
        """One line a run, in the order in which they began."""
        return [run.closing_line() for run in sorted(self.runs.values(), key=lambda run: run.created_ns) if run.peers]
