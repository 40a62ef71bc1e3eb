"""Rounds: a request to ranks, the answers that are still missing, and the deadline for them.

Pure. A round is over when every rank in it has answered or ended, or when its deadline has passed. What is asked, what
counts as an answer, and what those who asked are sent, the owner of the rounds decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from tlogs_collector.hub.peer import Peer
from tlogs_shared.protocol.clock import Moment

__all__ = ["Round", "Rounds"]

MAX_TIMEOUT_S: Final = 600.0
"""An operator may wait this long; what is kept for one that went away is bounded by it."""

Request = TypeVar("Request")


@dataclass(slots=True, eq=False)
class Round(Generic[Request]):
    """One request: the ranks that were asked, as they were labelled then, and who waits for the outcome."""

    request: Request
    run: str
    targets: list[tuple[int, Peer]]
    missing: set[bytes]
    began_s: float
    deadline_s: float
    askers: list[tuple[bytes, int]] = field(default_factory=list)
    """Connections, each with the number of its question."""

    def took_ms(self, now: Moment) -> float:
        """How long it has taken so far."""
        return round((now.s - self.began_s) * 1000, 1)


@dataclass(slots=True)
class Rounds(Generic[Request]):
    """The rounds that are not over yet."""

    _open: list[Round[Request]] = field(default_factory=list)

    def begin(self, request: Request, run: str, peers: Iterable[Peer], now: Moment, timeout_s: float) -> Round[Request]:
        """Begin to wait for the answers of *peers*, for at most *timeout_s*."""
        targets = [(peer.rank, peer) for peer in peers if peer.rank is not None]
        missing = {peer.stream for _, peer in targets}
        deadline_s = now.s + min(max(timeout_s, 0.0), MAX_TIMEOUT_S)
        begun = Round(request, run, targets, missing, now.s, deadline_s)
        self._open.append(begun)
        return begun

    def answered(self, peer: Peer, is_answer: Callable[[Request], bool]) -> list[Round[Request]]:
        """Cross *peer* off if it has ended or its message *is_answer*; return the rounds completed by this."""
        for one in self._open:
            if one.run == peer.run and (not peer.is_open or is_answer(one.request)):
                one.missing.discard(peer.stream)
        return self.complete()

    def complete(self) -> list[Round[Request]]:
        """Return the rounds that wait for nobody; they are over."""
        return self._take(lambda one: not one.missing)

    def overdue(self, now: Moment) -> list[Round[Request]]:
        """Return the rounds whose deadline has passed; they are over."""
        return self._take(lambda one: one.deadline_s <= now.s)

    def is_awaited_by(self, connection: bytes) -> bool:
        """Whether somebody waits on this connection for a round to be over."""
        return any(connection == asker for one in self._open for asker, _ in one.askers)

    def _take(self, is_over: Callable[[Round[Request]], bool]) -> list[Round[Request]]:
        found = [one for one in self._open if is_over(one)]
        if found:
            self._open = [one for one in self._open if one not in found]
        return found
