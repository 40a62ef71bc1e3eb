"""Streams that end: with a bye, or found gone. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tlogs_collector.hub.actions import Action, PutStream, Recover, Send
from tlogs_collector.hub.admission import Admission
from tlogs_collector.hub.changes import Changes
from tlogs_collector.hub.peer import Peer
from tlogs_collector.hub.run import Run
from tlogs_collector.hub.runs import Runs
from tlogs_shared.end import ENDED, FINISHED, SILENT, End
from tlogs_shared.protocol.clock import Moment
from tlogs_shared.protocol.messages import Bye, Stranger

__all__ = ["Departures"]


@dataclass(slots=True)
class Departures:
    """How streams of this collector end."""

    runs: Runs
    admission: Admission
    changes: Changes

    def bye(self, peer: Peer, message: Bye, now: Moment) -> list[Action]:
        """A stream says that it ends."""
        peer.info = replace(peer.info, head=max(peer.info.head, message.head), dropped=dict(message.dropped))
        if message.head > peer.watermark:
            return []  # it could not wait: once its process is gone, the rest is brought in from the outbox
        return self._end(self.runs.by_name[peer.run], peer, _end_of(peer, message, now), now)

    def gone(self, run: Run, peer: Peer, now: Moment) -> list[Action]:
        """A process has ended without a bye; where it was on this host and has no agent, its outbox is brought in."""
        origin, has_agent = peer.info.origin, peer.connection is not None
        is_dead = self.runs.is_alive(origin) is False
        actions = self._end(run, peer, End(ENDED if is_dead else SILENT, ended_ns=peer.last_heard_ns(now)), now)
        peer.is_deserted = True
        if is_dead and origin.outbox and not has_agent:
            actions.append(Recover([origin.outbox]))
        return actions

    def _end(self, run: Run, peer: Peer, end: End, now: Moment) -> list[Action]:
        self.admission.part(peer)
        run.end(peer, end)
        peer.is_deserted = False
        return [PutStream(run.name, peer.stream, peer.info), *self.changes.answered(peer, now)]

    def look(self, run: Run, period_s: float, now: Moment) -> list[Action]:
        """Find the streams of *run* that have been silent for more than a period and are gone."""
        actions: list[Action] = []
        for peer in list(run.speaking.values()):
            if now.s - peer.heard_s < period_s:
                continue
            is_gone = peer.is_gone(now.s, period_s)
            if peer.connection is None and (is_gone or self.runs.is_alive(peer.info.origin) is False):
                actions += self.gone(run, peer, now)
            elif is_gone and peer.connection is not None:
                # It says hello if it receives this; if nobody is connected there any more, sending fails and says so.
                actions.append(Send(peer.connection, Stranger(peer.stream)))
        return actions


def _end_of(peer: Peer, message: Bye, now: Moment) -> End:
    """How a stream with this bye ended: what was known before may be more than who brings in its outbox knows."""
    known, told = peer.info.end, message.end
    if known is not None and known.how not in (ENDED, SILENT) and (told is None or told.how == ENDED):
        return known
    if told is not None:
        return told
    # A process that goes on without us has finished, as far as this run is concerned.
    return known or End(ENDED if peer.recovering else FINISHED, ended_ns=peer.last_heard_ns(now))
