"""Runs that are over: when that is, and what the daemon says of them. Pure.

A run whose ranks have all ended may still go on: torchrun starts them again some seconds later. So it is over at once
only where that cannot be, and where nothing that dead ranks left is still to come; else after a while. One that goes
on after all is live again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tlogs_collector.hub.actions import Action, Conclude, Say
from tlogs_collector.hub.peer import Peer
from tlogs_collector.hub.run import Run
from tlogs_shared.end import ENDED, FINISHED
from tlogs_shared.origin import StreamInfo
from tlogs_shared.outcome import conclusion, last_attempt
from tlogs_shared.protocol.clock import Moment

__all__ = ["Conclusions"]

RESTART_S: Final = 20.0
"""torchrun has started the ranks again by then, and what they left on this host has been brought in."""


@dataclass(slots=True)
class Conclusions:
    """Says of each run once how it ended."""

    def look(self, run: Run, now: Moment) -> list[Action]:
        """Conclude *run* if it is over by now."""
        if run.is_concluded or not run.peers:
            return []
        if run.has_live_rank:
            run.ended_s = None
            return []
        if run.ended_s is None:
            run.ended_s = now.s
        if not _is_over(run, now.s - run.ended_s):
            return []
        run.is_concluded = True
        return [Say(f"run {run.name}: {_text(run)}"), Conclude(run.name, run.last_end_ns or now.ns)]

    def revive(self, run: Run) -> list[Action]:
        """A stream has come that may log: the run goes on."""
        run.ended_s = None
        if not run.is_concluded:
            return []
        run.is_concluded = False
        return [Conclude(run.name, None)]

    def at_the_end(self, run: Run) -> str | None:
        """What is to be said of *run* when the daemon ends, beside its closing line."""
        running = sum(1 for peer in run.speaking.values() if peer.is_rank)
        if running:
            were = "ranks were" if running > 1 else "rank was"
            keep = "they keep their records" if running > 1 else "it keeps its records"
            return f"run {run.name}: {running} {were} still running; {keep} until a collector is back"
        return None if run.is_concluded or run.has_live_rank else f"run {run.name}: {_text(run)}"


def _text(run: Run) -> str:
    infos = [peer.info for peer in run.ranks()] or [peer.info for peer in run.peers.values()]
    return f"{conclusion(infos, run.created_ns)} · {run.counts()}"


def _is_over(run: Run, ended_for_s: float) -> bool:
    if any(peer.recovering and peer.connection is not None for peer in run.peers.values()):
        return False
    return ended_for_s >= RESTART_S or (
        _cannot_go_on([peer.info for peer in run.ranks()]) and not any(map(_is_awaited, run.peers.values()))
    )


def _is_awaited(peer: Peer) -> bool:
    """Whether what this stream left on this host is still to be brought in."""
    return peer.is_deserted and peer.state == ENDED and peer.info.origin.outbox != ""


def _cannot_go_on(infos: list[StreamInfo]) -> bool:
    """Whether all ranks were here, and none of them will be started again."""
    ranks = last_attempt(infos)
    world_size = max((info.origin.world_size or 0 for info in ranks), default=0)
    if not ranks or len({info.origin.rank for info in ranks}) < world_size:
        return False
    if all(info.end is not None and info.end.how == FINISHED for info in ranks):
        return True
    origins = [info.origin for info in ranks]
    return any(
        origin.max_restarts is not None and (origin.restart_count or 0) >= origin.max_restarts for origin in origins
    )
