"""The connections: an agent's, with the streams that it sends, or an operator's. Pure, as the hub is.

Who may connect was decided at the door, before anything was said (`tlogs_collector.listener`). A connection is a
routing id of a socket; each reconnect is a new one, over which streams say hello again. The socket never tells that one
has ended, so those that are silent are forgotten; one that still lives is told `Stranger` and says hello again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from tlogs_collector.hub.actions import Action, Say, Send
from tlogs_collector.hub.peer import Peer
from tlogs_shared.protocol.messages import Refused

__all__ = ["Admission", "Connection"]

MAX_FAULTS: Final = 3
"""A connection that breaks the protocol so often is ignored from then on."""

MAX_CONNECTIONS: Final = 65_536
"""All hosts and operators of the largest job; beyond it the one that was silent longest is forgotten."""

DEAF_S: Final = 10.0
"""A connection that is ignored is forgotten after so long without a message."""

REASONS: Final = {
    "access": "wrong or missing secret",
    "protocol": "not a message of tlogs, or not allowed",
    "version": "another version of tlogs",
}
"""Why a message was refused, as an operator is told; by the code of `Refused`."""

IDLE_S: Final = 60.0
"""An operator, or an agent without streams, is forgotten after so long without a message."""


@dataclass(slots=True)
class Connection:
    """One routing id, with the streams that are sent over it."""

    heard_s: float
    peers: dict[bytes, Peer] = field(default_factory=dict)
    faults: int = 0

    @property
    def is_deaf(self) -> bool:
        """Whether everything that comes from there is ignored."""
        return self.faults >= MAX_FAULTS


@dataclass(slots=True)
class Admission:
    """The connections of this collector; `rejected` counts refused messages, `last_rejection` is why and when."""

    connections: dict[bytes, Connection] = field(default_factory=dict)
    rejected: int = 0
    last_rejection: tuple[str, float] = ("", 0.0)
    streams: int = 0
    """How many streams are connected."""

    def meet(self, connection: bytes, now_s: float) -> Connection:
        """A connection that was not known."""
        if len(self.connections) >= MAX_CONNECTIONS:
            self.forget(min(self.connections, key=lambda other: self.connections[other].heard_s))
        known = self.connections[connection] = Connection(now_s)
        return known

    def broken(self, connection: bytes, code: str, text: str, now_s: float, stream: bytes = b"") -> list[Action]:
        """A connection broke the protocol: refuse that, count it, and after a few of them ignore the connection."""
        known = self.connections.get(connection) or self.meet(connection, now_s)
        if known.is_deaf:
            return []
        self._reject(code, now_s)
        known.faults += 1
        known.heard_s = now_s
        actions: list[Action] = [Send(connection, Refused(stream, code, text))]
        if known.is_deaf:
            actions.append(Say(f"ignoring a connection after {MAX_FAULTS} faults: {text}"))
        return actions

    def join(self, connection: bytes, peer: Peer) -> None:
        """From here on *peer* uses this connection, and no other."""
        self.part(peer)
        self.connections[connection].peers[peer.stream] = peer
        peer.connection = connection
        self.streams += 1

    def part(self, peer: Peer) -> None:
        """*peer* has no connection any more; the connection stays."""
        known = None if peer.connection is None else self.connections.get(peer.connection)
        if known is not None and known.peers.pop(peer.stream, None) is not None:
            self.streams -= 1
        peer.connection = None

    def forget(self, connection: bytes) -> None:
        """The connection is gone, and its streams have none."""
        known = self.connections.pop(connection, None)
        if known is not None:
            for peer in known.peers.values():
                peer.connection = None
            self.streams -= len(known.peers)

    def stale(self, now_s: float, is_waiting: Callable[[bytes], bool]) -> list[bytes]:
        """The connections that have been silent for too long, but for senders of streams and those that wait for us."""
        found = []
        for connection, known in self.connections.items():
            silent_s = now_s - known.heard_s
            if known.is_deaf:
                if silent_s > DEAF_S:
                    found.append(connection)
            elif not known.peers and silent_s > IDLE_S and not is_waiting(connection):
                found.append(connection)
        return found

    def _reject(self, code: str, now_s: float) -> None:
        self.rejected += 1
        self.last_rejection = REASONS.get(code, code), now_s
