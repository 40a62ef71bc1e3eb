"""Every decision of the collector: who may speak, what is taken, what is answered. No socket, no clock, no disk.

Theory of operation
-------------------
Events come in (`handle`, `opened`, `stored`, `tick`, …), actions go out; the server carries them out and reports
what came of them as further events. A connection is a routing id of the socket: it is nobody until it has said
hello, and hello again after each reconnect, because each reconnect is a new routing id. A stream is a peer of a run,
for as long as the run is kept; it outlives its connections.

A batch is acknowledged when the store says that it is safe, not when it is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from tlogs_collector.actions import (
    Action,
    Append,
    OpenRun,
    PutStream,
    Recover,
    Say,
    Send,
)
from tlogs_collector.desk import Desk
from tlogs_collector.peer import Peer, Verdict
from tlogs_collector.run import Run
from tlogs_shared.batch import Header
from tlogs_shared.clock import Moment
from tlogs_shared.errors import MessageError
from tlogs_shared.messages import (
    Ack,
    Applied,
    Ask,
    Batch,
    Beat,
    Bye,
    Challenge,
    Change,
    Fetch,
    Follow,
    Heartbeat,
    Hello,
    Message,
    Proof,
    Refused,
    Rewind,
    Stranger,
    Welcome,
)
from tlogs_shared.origin import Origin, StreamInfo
from tlogs_shared.secret import NONCE_BYTES, is_proof, prove

__all__ = ["Hub", "Known", "Stored"]

MAX_WINDOW: Final = 4 * 1024 * 1024
WINDOW_BUDGET: Final = 256 * 1024 * 1024
"""What all ranks together may have on the way: the collector's memory is bounded by it."""

MIN_WINDOW: Final = 64 * 1024

BEATS_PER_S: Final = 500
BATCHES_PER_S: Final = 5000
"""Beyond so many a second the ranks are asked to speak less often; the collector keeps room for their records."""

AGE_S: Final = 0.02
PERIOD_S: Final = 1.0
FOLLOWED_PERIOD_S: Final = 0.1
FOLLOWED_PEERS: Final = 64
"""Up to so many ranks heartbeats come faster while someone follows, so that merged output lags less."""

MAX_FAULTS: Final = 3
"""A connection that broke the protocol so often is not listened to any more."""


class Stored(Protocol):
    """What the store knows of a stream of a run that is continued."""

    @property
    def info(self) -> StreamInfo:
        """The last stream frame."""

    @property
    def watermark(self) -> int:
        """The number after the last stored record."""

    @property
    def records(self) -> int:
        """How many records are stored."""


@dataclass(frozen=True, slots=True)
class Known:
    """A run in the directory that nobody owns and that was not closed: it is continued when its ranks come back."""

    name: str
    key: str
    created_ns: int


@dataclass(slots=True)
class Connection:
    """One routing id: nobody yet, a stream's sender, or an operator."""

    challenge: bytes = b""
    admitted: bool = False
    waiting: Hello | Ask | None = None
    peer: Peer | None = None
    faults: int = 0


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
    runs: dict[str, Run] = field(default_factory=dict)
    connections: dict[bytes, Connection] = field(default_factory=dict)
    closing: bool = False
    rejected: int = 0
    desk: Desk = field(init=False)
    _waiting: dict[str, list[tuple[bytes, Hello]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.desk = Desk(self)

    # Messages.

    def handle(self, connection: bytes, message: Message, now: Moment) -> list[Action]:
        """What a message asks for."""
        known = self.connections.get(connection)
        if known is None:
            if isinstance(message, Hello | Ask):
                known = self.connections[connection] = Connection()
            else:
                return [Send(connection, Stranger())]
        if known.faults >= MAX_FAULTS:
            return []
        if known.peer is not None:
            known.peer.heard_s = now.s
        match message:
            case Batch() if known.peer is not None:
                return self._batch(connection, known.peer, message, now)
            case Heartbeat() if known.peer is not None:
                return self._heartbeat(connection, known.peer, message, now)
            case Hello() | Ask() if not known.admitted:
                return self._first(connection, known, message, now)
            case Proof():
                return self._proved(connection, known, message, now)
            case Hello():
                return self._hello(connection, message, now)
            case Applied() if known.peer is not None:
                known.peer.revision = message.revision
                known.peer.answers, known.peer.report = message.answers, message.report
                return self.desk.answered(self.runs[known.peer.run], now)
            case Bye() if known.peer is not None:
                return self._bye(connection, known.peer, message)
            case Ask() | Change() | Follow() | Fetch() if known.admitted:
                return self.desk.handle(connection, message, now)
            case _:
                return [Send(connection, Stranger())]

    def broken(self, connection: bytes, code: str, text: str) -> list[Action]:
        """This connection sent something that is no message: tell it, count it, and after some more be deaf to it."""
        known = self.connections.setdefault(connection, Connection())
        self.rejected += 1
        known.faults += 1
        if known.faults > MAX_FAULTS:
            return []
        return [Send(connection, Refused(code, text))]

    def unreachable(self, connection: bytes) -> None:
        """The connection is gone; its stream says hello on another if it lives."""
        known = self.connections.pop(connection, None)
        if known is not None and known.peer is not None and known.peer.connection == connection:
            known.peer.connection = None
        self.desk.forget(connection)

    # Admission.

    def _first(self, connection: bytes, known: Connection, message: Hello | Ask, now: Moment) -> list[Action]:
        if self.secret is None:
            return self._admit(connection, known, message, now)
        known.waiting = message
        known.challenge = known.challenge or self.token(NONCE_BYTES)  # one a connection: its hellos may cross
        return [self._challenge(connection, known.challenge, message.nonce, self.secret)]

    @staticmethod
    def _challenge(connection: bytes, challenge: bytes, nonce: bytes, secret: bytes) -> Send:
        return Send(connection, Challenge(challenge, prove(secret, "collector", nonce)))

    def _proved(self, connection: bytes, known: Connection, message: Proof, now: Moment) -> list[Action]:
        if known.waiting is None or self.secret is None:
            return []
        if not is_proof(self.secret, "peer", known.challenge, message.proof):
            refused = self.broken(
                connection, "access", "the secret is wrong; give the one that the collector was given"
            )
            if known.faults < MAX_FAULTS:
                # It may have been the answer to another connection's challenge, which had to be sent again on this one.
                return [self._challenge(connection, known.challenge, known.waiting.nonce, self.secret)]
            return refused
        waiting, known.waiting = known.waiting, None
        return self._admit(connection, known, waiting, now)

    def _admit(self, connection: bytes, known: Connection, message: Hello | Ask, now: Moment) -> list[Action]:
        known.admitted = True
        if isinstance(message, Hello):
            return self._hello(connection, message, now)
        return self.desk.handle(connection, message, now)

    def _hello(self, connection: bytes, hello: Hello, now: Moment) -> list[Action]:
        if self.closing and not hello.recovering and not self._peer_of(hello.stream):
            return [Send(connection, Refused("closing", "the collector is about to end"))]
        run = self._run_for(hello, now)
        if run.is_open:
            return self._join(connection, hello, run, now)
        waiting = self._waiting.setdefault(run.name, [])
        waiting[:] = [(other, said) for other, said in waiting if other != connection]
        waiting.append((connection, hello))
        if len(waiting) > 1:
            return []
        return [OpenRun(run.name, {"key": run.key, "created_ns": run.created_ns})]

    def _peer_of(self, stream: bytes) -> Peer | None:
        return next((run.peers[stream] for run in self.runs.values() if stream in run.peers), None)

    def _run_for(self, hello: Hello, now: Moment) -> Run:
        """The run that a stream belongs to, by the rules of the README's "Runs"."""
        if (peer := self._peer_of(hello.stream)) is not None:
            return self.runs[peer.run]
        name = self.only_run or hello.origin.run
        key = hello.origin.key
        if name is None:
            same_key = [run for run in self.runs.values() if run.key == key]
            if same_key:
                newest = max(same_key, key=lambda run: run.created_ns)
                joins = not newest.is_over or newest.lacks(hello.origin)
                if joins and not self._is_rival_alive(newest, hello):
                    return newest
            else:
                left = [known for known in self.known if known.key == key]
                if left:
                    name = max(left, key=lambda known: known.created_ns).name
        if name is None:
            name = self.new_name()
        if name not in self.runs:
            created = next((known.created_ns for known in self.known if known.name == name), now.ns)
            self.known = [known for known in self.known if known.name != name]
            self.runs[name] = Run(name, key, created)
        return self.runs[name]

    def _is_rival_alive(self, run: Run, hello: Hello) -> bool:
        rival = run.rival(hello.stream, hello.origin)
        if rival is None or self.is_alive(rival.info.origin) is False:
            return False
        old, new = rival.info.origin.restart_count, hello.origin.restart_count
        # torchrun starts a worker again only once the old one has ended, whether we have noticed yet or not.
        return not (old is not None and new is not None and new > old)

    def opened(
        self, name: str, streams: Mapping[bytes, Stored], control: Sequence[Mapping[str, Any]], now: Moment
    ) -> list[Action]:
        """The store has opened a run, with the streams that it held already."""
        run = self.runs[name]
        run.is_open = True
        for stream, stored in streams.items():
            peer = Peer(stream, name, stored.info, stored.watermark, stored.watermark, stored.records)
            peer.heard_s = now.s  # it gets the time of any peer to come back
            run.peers[stream] = peer
        try:
            run.restore(control, now)
        except MessageError as error:
            return [Say(f"run {name}: the leases could not be read back: {error}"), *self._let_in(run, now)]
        return self._let_in(run, now)

    def unopened(self, name: str, why: str) -> list[Action]:
        """The store could not open the run: those who wait are told."""
        waiting = self._waiting.pop(name, [])
        del self.runs[name]
        refusal = Refused("run", f"run {name}: {why}")
        return [Say(f"run {name}: {why}"), *(Send(connection, refusal) for connection, _ in waiting)]

    def _let_in(self, run: Run, now: Moment) -> list[Action]:
        actions: list[Action] = []
        for connection, hello in self._waiting.pop(run.name, []):
            if self._run_for(hello, now) is run:
                actions += self._join(connection, hello, run, now)
            else:
                actions += self._hello(connection, hello, now)  # another job's run was found: a new one begins
        return actions

    def _join(self, connection: bytes, hello: Hello, run: Run, now: Moment) -> list[Action]:
        peer = run.peers.get(hello.stream)
        actions: list[Action] = []
        if peer is None:
            if (rival := run.rival(hello.stream, hello.origin)) is not None:
                if self._is_rival_alive(run, hello):
                    rival.duplicate = True
                else:
                    actions += self._gone(rival)
            info = StreamInfo(hello.origin, attempt=run.attempt_of(hello.stream, hello.origin))
            peer = run.peers[hello.stream] = Peer(hello.stream, run.name, info)
            peer.duplicate = rival is not None and rival.is_open
            changed = True
        else:
            changed = peer.info.origin != hello.origin and not hello.recovering
            if changed:
                peer.info = replace(peer.info, origin=hello.origin)
        if peer.info.end and hello.recovering:
            peer.recovering = True
        elif peer.info.end:
            peer.info = replace(peer.info, end="")
            changed = True
        changed |= peer.resume(hello.first)
        peer.info = replace(peer.info, head=max(peer.info.head, hello.head))
        if peer.connection not in (None, connection) and peer.connection in self.connections:
            self.connections[peer.connection].peer = None
        peer.connection, peer.heard_s, peer.recovering = connection, now.s, hello.recovering
        known = self.connections[connection]
        known.peer = peer
        if changed:
            actions.append(PutStream(run.name, peer.stream, peer.info))
        self._pace(run)
        welcome = Welcome(
            run.name, peer.info.attempt, peer.watermark, peer.stored, self.window(), run.period_s, run.age_s
        )
        actions.append(Send(connection, welcome))
        if not hello.recovering:
            actions.append(Send(connection, run.settings(now)))
        return actions

    # Streams.

    def _batch(self, connection: bytes, peer: Peer, message: Batch, now: Moment) -> list[Action]:
        run = self.runs[peer.run]
        if run.stalled:
            return []
        header = message.header
        if header.stream != peer.stream:
            return self.broken(connection, "protocol", "a batch of another stream than the one that said hello")
        match peer.judge(header):
            case Verdict.TAKE:
                return [Append(peer.run, header, message.payload)]
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
        if message.revision != run.revision and not peer.recovering:
            actions.append(Send(connection, run.settings(now)))
        return actions

    def _bye(self, connection: bytes, peer: Peer, message: Bye) -> list[Action]:
        peer.info = replace(peer.info, head=max(peer.info.head, message.head), dropped=dict(message.dropped))
        if message.head > peer.watermark:
            # It could not wait for the rest, which lies in its outbox: once the process is gone, that is brought in.
            return [Send(connection, Ack(peer.stored, self.window()))]
        peer.end("recovered" if peer.recovering else "bye")
        self.connections[connection].peer = None
        return [PutStream(peer.run, peer.stream, peer.info), Send(connection, Ack(peer.stored, self.window()))]

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
        for peer in self.runs[run].peers.values():
            stored = streams.get(peer.stream)
            peer.watermark = peer.stored = stored.watermark if stored is not None else 0
            peer.records = stored.records if stored is not None else 0
            peer.rewound_to = None
        return self.resume(run)

    # Time.

    def tick(self, now: Moment) -> list[Action]:
        """What the passing of time asks for; *now* must not be later than the last message that waits to be read."""
        actions: list[Action] = []
        for run in self.runs.values():
            period = self._pace(run)
            for peer in run.peers.values():
                if not peer.is_open or now.s - peer.heard_s < period:
                    continue
                dead = self.is_alive(peer.info.origin) is False
                if dead or (peer.is_lost(now.s, period) and peer.connection is None):
                    actions += self._gone(peer)
                elif peer.is_lost(now.s, period):
                    peer.connection = None  # the next tick calls it gone unless it comes back
        return actions + self.desk.tick(now)

    def _gone(self, peer: Peer) -> list[Action]:
        """This process has ended without a word; where it was on this host, bring in what it left."""
        peer.end("gone")
        actions: list[Action] = [PutStream(peer.run, peer.stream, peer.info)]
        if peer.info.origin.outbox and self.is_alive(peer.info.origin) is False:
            actions.append(Recover([peer.info.origin.outbox]))
        return actions

    def _pace(self, run: Run) -> float:
        """Set how old a record may become before it is sent, and the time between heartbeats; the latter."""
        peers = sum(1 for peer in run.peers.values() if peer.is_open)
        followed = self.desk.is_followed(run.name) and peers <= FOLLOWED_PEERS
        period = FOLLOWED_PERIOD_S if followed else PERIOD_S
        run.age_s = max(AGE_S, peers / BATCHES_PER_S)
        run.period_s = max(period, peers / BEATS_PER_S)
        return run.period_s

    def window(self) -> int:
        """How many bytes one stream may have on the way."""
        return max(MIN_WINDOW, min(MAX_WINDOW, WINDOW_BUDGET // max(1, len(self.connections))))

    # The end.

    def stop(self) -> None:
        """No new streams from here on; those that are here may finish."""
        self.closing = True

    @property
    def is_idle(self) -> bool:
        """Whether nobody is here who may still speak."""
        return not any(run.is_live for run in self.runs.values()) and not self._waiting

    def closing_lines(self) -> list[str]:
        """One line a run, in the order in which they began."""
        return [run.closing_line() for run in sorted(self.runs.values(), key=lambda run: run.created_ns) if run.peers]
