"""Who may speak: the connections, and the proof of the secret that lets one in. Pure, as the hub is.

A connection is a routing id of the socket: it is nobody until it has said hello, and hello again after each
reconnect, because each reconnect is a new routing id. The socket never tells that one has ended, so those that are
silent are forgotten; one that still lives is told `Stranger` and says hello again.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from tlogs_collector.hub.actions import Action, Say, Send
from tlogs_collector.hub.peer import Peer
from tlogs_shared.protocol.messages import Ask, Challenge, Hello, Proof, Refused
from tlogs_shared.protocol.secret import NONCE_BYTES, is_proof, prove

__all__ = ["Admission", "Connection"]

MAX_FAULTS: Final = 3
"""A connection that broke the protocol so often is not listened to any more."""

MAX_HALF_OPEN: Final = 16_384
"""Connections that have proved nothing yet; all ranks of the largest job may say hello in one moment."""

PROOF_S: Final = 10.0
"""A hello whose proof does not come, and a connection that is not listened to, is forgotten after so long."""

IDLE_S: Final = 60.0
"""An operator, or a stream's former connection, is forgotten after so long without a word."""


@dataclass(slots=True)
class Connection:
    """One routing id: nobody yet, a stream's sender, or an operator."""

    heard_s: float
    admitted: bool = False
    waiting: Hello | Ask | None = None
    peer: Peer | None = None
    faults: int = 0

    @property
    def is_deaf(self) -> bool:
        """Whether nothing that comes from there is looked at any more."""
        return self.faults >= MAX_FAULTS

    def part(self) -> None:
        """The stream that spoke over this connection does not any more."""
        if self.peer is not None:
            self.peer.connection = None
            self.peer = None


@dataclass(slots=True)
class Admission:
    """The connections of this collector; `rejected` counts what was turned away."""

    secret: bytes | None
    token: Callable[[int], bytes]
    connections: dict[bytes, Connection] = field(default_factory=dict)
    rejected: int = 0
    _half_open: dict[bytes, None] = field(default_factory=dict)
    _salt: bytes = field(init=False)

    def __post_init__(self) -> None:
        self._salt = self.token(NONCE_BYTES)

    def meet(self, connection: bytes, now_s: float) -> Connection:
        """A connection that was not known; where too many have proved nothing, the oldest of them has to go."""
        if len(self._half_open) >= MAX_HALF_OPEN:
            self._turn_away(next(iter(self._half_open)))
        known = self.connections[connection] = Connection(now_s)
        self._half_open[connection] = None
        return known

    def challenge(self, connection: bytes, known: Connection, message: Hello | Ask) -> list[Action]:
        """What a newcomer is answered: nothing where it is let in without a proof."""
        if self.secret is None:
            self._let_in(connection, known)
            return []
        # What a stranger has us keep is small: an operator's first question has no options.
        known.waiting = message if isinstance(message, Hello) else replace(message, options={})
        return [Send(connection, Challenge(self._nonce(connection), self.own_proof(message.nonce)))]

    def _nonce(self, connection: bytes) -> bytes:
        """What a connection has to answer: always the same, since its hellos may cross and it may be forgotten."""
        return hmac.digest(self._salt, connection, hashlib.sha256)[:NONCE_BYTES]

    def own_proof(self, nonce: bytes) -> bytes:
        """What shows a peer that this collector has the secret; empty where there is none."""
        return b"" if self.secret is None else prove(self.secret, "collector", nonce)

    def prove(self, connection: bytes, known: Connection, message: Proof) -> tuple[list[Action], Hello | Ask | None]:
        """What a proof is answered, and the message that waited for it where it is good."""
        if known.waiting is None or self.secret is None:
            return [], None
        if is_proof(self.secret, "peer", self._nonce(connection), message.proof):
            waiting, known.waiting = known.waiting, None
            self._let_in(connection, known)
            return [], waiting
        text = "the secret is wrong; give the one that the collector was given"
        refused = self.broken(connection, "access", text, known.heard_s)
        if known.is_deaf:
            return refused, None
        # It may have been the answer to another connection's challenge, which had to be sent again on this one.
        return [Send(connection, Challenge(self._nonce(connection), self.own_proof(known.waiting.nonce)))], None

    def _let_in(self, connection: bytes, known: Connection) -> None:
        known.admitted = True
        self._half_open.pop(connection, None)

    def broken(self, connection: bytes, code: str, text: str, now_s: float) -> list[Action]:
        """This connection did what is not allowed: tell it, count it, and after some more be deaf to it."""
        known = self.connections.get(connection) or self.meet(connection, now_s)
        if known.is_deaf:
            return []
        self.rejected += 1
        known.faults += 1
        known.heard_s = now_s
        actions: list[Action] = [Send(connection, Refused(code, text))]
        if known.is_deaf:
            known.waiting = None
            actions.append(Say(f"not listening to a connection any more: {text}"))
        return actions

    def part(self, connection: bytes) -> None:
        """The stream that spoke over this connection does not any more; the connection stays."""
        if (known := self.connections.get(connection)) is not None:
            known.part()

    def forget(self, connection: bytes) -> Connection | None:
        """The connection is gone."""
        self._half_open.pop(connection, None)
        return self.connections.pop(connection, None)

    def stale(self, now_s: float, is_waiting: Callable[[bytes], bool]) -> list[bytes]:
        """The connections that have been silent for too long, but for senders of streams and those that wait for us."""
        found = []
        for connection, known in self.connections.items():
            if known.admitted and not known.is_deaf:
                if known.peer is None and now_s - known.heard_s > IDLE_S and not is_waiting(connection):
                    found.append(connection)
            elif now_s - known.heard_s > PROOF_S:
                self.rejected += not known.faults  # faults were counted when they happened
                found.append(connection)
        return found

    def _turn_away(self, connection: bytes) -> None:
        self.rejected += 1
        self.forget(connection)
