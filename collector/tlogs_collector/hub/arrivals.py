"""Streams that say hello: which run and attempt they belong to, and the number from which they go on. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from tlogs_collector.hub.actions import Action, Control, OpenRun, PutStream, Say, Send
from tlogs_collector.hub.admission import Admission
from tlogs_collector.hub.conclusions import Conclusions
from tlogs_collector.hub.departures import Departures
from tlogs_collector.hub.pacing import Pacing
from tlogs_collector.hub.peer import Peer
from tlogs_collector.hub.run import Run
from tlogs_collector.hub.runs import Runs
from tlogs_shared.end import ENDED, End
from tlogs_shared.origin import Origin, StreamInfo
from tlogs_shared.protocol.clock import Moment
from tlogs_shared.protocol.messages import Hello, Refused, Welcome
from tlogs_shared.storage.layout import is_run_name

__all__ = ["Arrivals", "Stored"]


class Stored(Protocol):
    """A stream of a continued run, as the store knows it."""

    @property
    def info(self) -> StreamInfo:
        """The last stream frame."""

    @property
    def watermark(self) -> int:
        """The number after the last stored record."""

    @property
    def records(self) -> int:
        """How many records are stored."""


@dataclass(slots=True)
class Arrivals:
    """The hellos of this collector; those whose run is not open yet wait."""

    runs: Runs
    admission: Admission
    departures: Departures
    pacing: Pacing
    conclusions: Conclusions
    instance: str = ""
    """What names this life of the collector."""
    closing: bool = False
    """Whether new streams are refused, since the daemon is about to end."""
    _waiting: dict[str, dict[bytes, tuple[bytes, Hello]]] = field(default_factory=dict)
    """By run and stream, the connection and the hello."""

    @property
    def is_empty(self) -> bool:
        """Whether no hello is waiting for its run to be opened."""
        return not self._waiting

    def hello(self, connection: bytes, hello: Hello, now: Moment) -> list[Action]:
        """Let a stream in; where its run is not open yet, it waits for that."""
        if self.closing and not hello.recovering and self.runs.find(hello.stream) is None:
            return [Send(connection, Refused(hello.stream, "closing", "the collector is about to end"))]
        name = hello.origin.run
        if name is not None and not is_run_name(name):
            text = f"{name!r:.140} cannot be the name of a run"
            return self.admission.broken(connection, "run", text, now.s, hello.stream)
        run = self.runs.choose(hello, now)
        if run.is_open:
            return self._join(connection, hello, run, now)
        waiting = self._waiting.setdefault(run.name, {})
        waiting[hello.stream] = connection, hello
        if len(waiting) > 1:
            return []
        return [OpenRun(run.name, {"key": run.key, "created_ns": run.created_ns})]

    def opened(
        self, name: str, streams: Mapping[bytes, Stored], control: Sequence[Mapping[str, Any]], now: Moment
    ) -> list[Action]:
        """The store has opened a run, with the streams that it held already."""
        run = self.runs.by_name[name]
        run.is_open = True
        actions: list[Action] = [Say(f"run {name}: {fault}") for fault in run.restore(control)]
        for stream, stored in streams.items():
            peer = Peer(stream, name, stored.info, stored.watermark, stored.watermark, records=stored.records)
            peer.heard_s = now.s  # it gets the time of any peer to come back
            run.add(peer)
            if peer.is_open and self.runs.is_alive(peer.info.origin) is False:
                actions += self.departures.gone(run, peer, now)
        for connection, hello in self._waiting.pop(name, {}).values():
            actions += self.hello(connection, hello, now)  # if another job's run was found, a new one begins
        return actions

    def unopened(self, name: str, why: str) -> list[Action]:
        """The store could not open the run: those who wait are told."""
        del self.runs.by_name[name]
        text = f"run {name}: {why}"
        waiting = self._waiting.pop(name, {})
        refused = [Send(connection, Refused(stream, "run", text)) for stream, (connection, _) in waiting.items()]
        return [Say(text), *refused]

    def _join(self, connection: bytes, hello: Hello, run: Run, now: Moment) -> list[Action]:
        if connection not in self.admission.connections:
            return []  # it went away while the run was opened
        origin = replace(hello.origin, run=run.name)
        actions: list[Action] = []
        changed = True
        peer = run.peers.get(hello.stream)
        if peer is None:
            if not hello.recovering:
                actions += self._meet_rival(run, hello.stream, origin, now)
            origin = run.without_rank(origin)
            peer = Peer(hello.stream, run.name, StreamInfo(origin, attempt=run.attempt_of(origin)))
            run.add(peer)
        elif hello.recovering:
            changed = False
        else:
            changed = run.relabel(peer, origin)
            if not peer.is_open:
                run.reopen(peer)
                changed = True
        if hello.recovering and peer.is_open:
            # Who brings in its outbox knows that the process has ended, and says more with its bye.
            run.end(peer, End(ENDED, ended_ns=peer.last_heard_ns(now)))
            changed = True
        peer.resume(hello.first)
        peer.info = replace(peer.info, head=max(peer.info.head, hello.head))
        self.admission.join(connection, peer)
        peer.heard_s, peer.recovering = now.s, hello.recovering
        if changed:
            actions += [PutStream(run.name, peer.stream, peer.info), *_resized(run, peer, now)]
            if (starter := run.give_way(peer.info.origin)) is not None:
                actions.append(PutStream(run.name, starter.stream, starter.info))
        self.pacing.adjust(run)
        actions.append(Send(connection, self._welcome(run, peer)))
        if not hello.recovering:
            actions.append(Send(connection, run.settings(now)))
            actions += self.conclusions.revive(run)
        return actions

    def _welcome(self, run: Run, peer: Peer) -> Welcome:
        return Welcome(
            peer.stream,
            run.name,
            peer.info.attempt,
            peer.watermark,
            peer.stored,
            self.pacing.window(),
            run.period_s,
            run.age_s,
            self.instance,
        )

    def _meet_rival(self, run: Run, stream: bytes, origin: Origin, now: Moment) -> list[Action]:
        """End a stream that had the same rank and must be gone; if it may live, report that two processes have it."""
        rival = run.rival(stream, origin)
        if rival is None:
            return []
        if self.runs.has_made_way(rival, origin):
            return self.departures.gone(run, rival, now)
        old = rival.info.origin
        return [
            Say(
                f"run {run.name}: two processes are rank {origin.rank}: {old.pid} on {old.host} and {origin.pid} on "
                f"{origin.host}; both are kept"
            )
        ]


def _resized(run: Run, peer: Peer, now: Moment) -> list[Action]:
    """When an elastic job restarted with another world size, log which ranks of each lease do not exist any more."""
    origin = peer.info.origin
    size = origin.world_size
    if not peer.is_rank or origin.provisional or size is None or size == run.world_size:
        return []
    run.world_size = size
    return [
        Control(
            run.name,
            {
                "time_ns": now.ns,
                "event": "outside",
                "lease": lease.revision,
                "world_size": size,
                "ranks": str(run.outside(lease)),
            },
        )
        for lease in run.in_force(now)
        if run.outside(lease)
    ]
