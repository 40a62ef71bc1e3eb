"""A rank's side of the conversation with the collector: every decision, no socket, no clock, no thread.

Theory of operation
-------------------
`handle(message, now)` and `tick(now)` return actions, which the forwarder carries out. The link holds no records: it
reads from the outbox's numbers what there is, and moves two marks in it. *Rewind* says from which number on to send
again, *Free* below which number everything is safe.

The states: WAITING (hello is said again and again until a welcome comes), LIVE, REFUSED (as WAITING, at a slower
pace, after the collector said no). A collector that falls silent, forgets us (`Stranger`) or acknowledges nothing
for a while sends the link back to WAITING, and the next welcome says from where to go on. That one path serves a
restarted collector, a cut network and a lost message alike.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Protocol, TypeAlias

from tlogs.worker.held_leases import Tenure
from tlogs_shared.errors import MessageError
from tlogs_shared.origin import Origin
from tlogs_shared.protocol.clock import ClockEstimate, Moment
from tlogs_shared.protocol.lease import Lease
from tlogs_shared.protocol.messages import (
    Ack,
    Applied,
    Beat,
    Bye,
    Challenge,
    Heartbeat,
    Hello,
    Message,
    Proof,
    Refused,
    Rewind,
    Settings,
    Stranger,
    Welcome,
)
from tlogs_shared.protocol.secret import NONCE_BYTES, is_proof, prove
from tlogs_shared.protocol.wire import pack_plain

__all__ = ["Action", "Complain", "Free", "GoBack", "Held", "Lay", "Link", "Send", "State"]

HELLO_EVERY_S = 1.0
"""A hello that was not answered is said again: it may have met a collector that was just starting."""

MAX_HELLO_S = 8.0
"""Each time after twice as long, up to this: thousands of ranks that start at once must not drown the collector."""

REFUSED_EVERY_S = 5.0
"""After a refusal: a secret may be put right while the job runs."""

SILENCE_PERIODS = 5
"""So many heartbeats without any answer, and the collector counts as out of reach."""

MIN_SILENCE_S = 3.0
NONCES_KEPT = 32
"""A collector to which thousands say hello at once may answer the first of ours after we have said some more."""

MIN_PERIOD_S = 0.05
"""Whatever a collector asks for, a rank does not heartbeat faster."""

STALL_S = 10.0
"""No acknowledgement for so long while something is in flight: ask where the collector stands."""


class State(Enum):
    """Where the conversation stands."""

    WAITING = "waiting"
    LIVE = "live"
    REFUSED = "refused"


class Held(Protocol):
    """What the link reads of the outbox."""

    @property
    def head(self) -> int:
        """The number that the next record gets."""

    @property
    def acknowledged(self) -> int:
        """The number below which everything is safe."""

    @property
    def low_ts(self) -> int:
        """A time before which no record will be logged any more, in nanoseconds."""

    @property
    def oldest_unsent_ts(self) -> int | None:
        """The time of the oldest record that was not handed out for sending, None where there is none."""

    @property
    def dropped(self) -> Mapping[int, int]:
        """Records that found no room, counted by level."""


@dataclass(frozen=True, slots=True)
class Send:
    """Put this on the socket; a refusal is told to the link by `unsent`."""

    message: Message


@dataclass(frozen=True, slots=True)
class GoBack:
    """Send from this number on (again)."""

    watermark: int


@dataclass(frozen=True, slots=True)
class Free:
    """Everything below this number is safe."""

    stored: int


@dataclass(frozen=True, slots=True)
class Lay:
    """Lay these leases over the levels and tell the link by `laid`; `began` and `ended` are worth a record each."""

    revision: int
    leases: Sequence[Lease]
    began: Sequence[Lease]
    ended: Sequence[Lease]


@dataclass(frozen=True, slots=True)
class Complain:
    """Tell the person at the terminal, once per `code`."""

    code: str
    text: str


Action: TypeAlias = Send | GoBack | Free | Lay | Complain


class Link:
    """One stream's conversation with a collector."""

    def __init__(
        self,
        stream: bytes,
        origin: Origin,
        outbox: Held,
        *,
        secret: bytes | None,
        nonce: Callable[[int], bytes],
        recovering: bool = False,
    ) -> None:
        self.stream = stream
        self.origin = origin
        self.state = State.WAITING
        self.run: str | None = None
        self.attempt = 0
        self.period_s = 1.0
        self.age_s = 0.02
        self.revision = 0
        self.tenure = Tenure()
        self._outbox = outbox
        self._secret = secret
        self._random = nonce
        self._nonces: deque[bytes] = deque(maxlen=NONCES_KEPT)
        self._labelled: set[bytes] = set()
        self._is_labelled = True
        self._recovering = recovering
        self._clock = ClockEstimate()
        self._hello_due_s = 0.0
        self._hello_wait_s = HELLO_EVERY_S
        self._beat_due_s = 0.0
        self._heard_s = 0.0
        self._progress_s = 0.0
        self._window = 0
        self._in_flight: deque[tuple[int, int]] = deque()
        self._in_flight_bytes = 0

    # What the forwarder asks.

    @property
    def room(self) -> int:
        """How many bytes may be sent now: 0 unless live. A window that is not used up admits one whole batch."""
        return max(self._window - self._in_flight_bytes, 0) if self.state is State.LIVE else 0

    @property
    def in_flight(self) -> int:
        """Bytes sent and not acknowledged."""
        return self._in_flight_bytes

    def due_s(self) -> float:
        """When `tick` next has something to do, in seconds of the monotonic clock."""
        due = [self._beat_due_s if self.state is State.LIVE else self._hello_due_s]
        if not self._is_labelled:
            due.append(self._hello_due_s)
        if (end := self.tenure.next_end_s) is not None:
            due.append(end)
        return min(due)

    # What the forwarder tells.

    def sent(self, end: int, size: int, now: Moment) -> None:
        """A batch of *size* bytes is on its way; *end* is the number after its last record."""
        if not self._in_flight:
            self._progress_s = now.s
        self._in_flight.append((end, size))
        self._in_flight_bytes += size

    def unsent(self, message: Message, now: Moment) -> None:
        """The socket did not take *message*: nobody is connected, or the other side does not read."""
        if isinstance(message, Hello):
            self._hello_due_s = now.s + 0.1
            self._hello_wait_s = HELLO_EVERY_S

    def relabel(self, origin: Origin, now: Moment) -> list[Action]:
        """A label was learnt late: say hello with it until a welcome answers that."""
        self.origin = replace(origin, run=self.origin.run)
        self._labelled.clear()
        self._is_labelled = False
        return [self._hello(now)] if self.state is State.LIVE else []

    def laid(self, revision: int, answers: Mapping[int, Sequence[str]], report: Mapping[str, Any]) -> list[Action]:
        """What became of a `Lay`."""
        if self.state is not State.LIVE:
            return []  # the collector asks again when we are back
        found = {lease: (kind, reason) for lease, (kind, reason) in answers.items()}
        return [Send(Applied(revision, found, pack_plain(report)))]

    def bye(self) -> list[Action]:
        """This stream ends; what was logged last has been sent."""
        return [Send(Bye(self._outbox.head, dict(self._outbox.dropped)))] if self.state is State.LIVE else []

    # Events.

    def tick(self, now: Moment) -> list[Action]:
        """What the passing of time asks for."""
        actions: list[Action] = []
        if ended := self.tenure.expire(now.s):
            actions.append(Lay(self.revision, self._mine(), [], self._covering(ended)))
        if self.state is State.LIVE:
            silence = max(MIN_SILENCE_S, SILENCE_PERIODS * self.period_s)
            stalled = bool(self._in_flight) and now.s - self._progress_s > STALL_S
            if now.s - self._heard_s > silence or stalled:
                self._wait(now)
        if self.state is State.LIVE and now.s >= self._beat_due_s:
            actions.append(self._heartbeat(now))
        if now.s >= self._hello_due_s and (self.state is not State.LIVE or not self._is_labelled):
            actions.append(self._hello(now))
        return actions

    def handle(self, message: Message, now: Moment) -> list[Action]:
        """What a message from the collector asks for; one that no collector sends is passed over."""
        self._heard_s = now.s
        match message:
            case Challenge():
                return self._challenged(message, now)
            case Welcome():
                return self._welcomed(message, now)
            case Ack() if self.state is State.LIVE:
                self._window = message.window
                return self._freed(message.stored, now)
            case Rewind() if self.state is State.LIVE:
                self._forget_in_flight()
                if message.watermark < self._outbox.acknowledged:
                    # The collector lost what it had acknowledged: the hello says what can still be had.
                    self._wait(now)
                    return [self._hello(now)]
                return [GoBack(message.watermark)]
            case Beat():
                self._clock.add(message.sent_ns, message.received_ns, message.replied_ns, now.ns, now.s)
                self._pace(message.period_s, message.age_s, now)
            case Settings():
                return self._set(message, now)
            case Stranger() if self.state is State.LIVE:
                self._wait(now)
                return [self._hello(now)]
            case Refused():
                return self._refuse(message.code, message.text, now)
            case _:
                pass
        return []

    # The parts.

    def _wait(self, now: Moment) -> None:
        self.state = State.WAITING
        self._hello_due_s = now.s
        self._hello_wait_s = HELLO_EVERY_S
        self._forget_in_flight()

    def _forget_in_flight(self) -> None:
        self._in_flight.clear()
        self._in_flight_bytes = 0

    def _hello(self, now: Moment) -> Send:
        self._nonces.append(self._random(NONCE_BYTES))
        # Ever more seldom, and not all ranks at once: a collector that thousands greet must get round to them.
        self._hello_due_s = now.s + self._hello_wait_s * (0.75 + self._nonces[-1][-1] / 512)
        self._hello_wait_s = min(2 * self._hello_wait_s, MAX_HELLO_S)
        if not self._is_labelled:
            self._labelled.add(self._nonces[-1])
        return Send(
            Hello(
                self.stream,
                self.origin,
                self._outbox.head,
                self._outbox.acknowledged,
                self._nonces[-1],
                self._recovering,
            )
        )

    def _challenged(self, message: Challenge, now: Moment) -> list[Action]:
        if self._secret is None:
            text = "the collector requires a secret, and none is set here: set TLOGS_SECRET_FILE"
        elif not any(is_proof(self._secret, "collector", nonce, message.proof) for nonce in self._nonces):
            text = "the collector has a different secret than this process: compare their secret files"
        else:
            return [Send(Proof(prove(self._secret, "peer", message.nonce)))]
        return self._refuse("access", text, now)

    def _refuse(self, code: str, text: str, now: Moment) -> list[Action]:
        self._forget_in_flight()
        self.state = State.REFUSED
        self._hello_due_s = now.s + REFUSED_EVERY_S
        return [Complain(code, text)]

    def _welcomed(self, message: Welcome, now: Moment) -> list[Action]:
        if message.nonce not in self._nonces:
            return []  # an answer from long ago
        if self._secret is not None and not is_proof(self._secret, "collector", message.nonce, message.proof):
            text = "the collector has not proved that it has this process's secret; was it started with --insecure?"
            return self._refuse("access", text, now)
        again = self.state is State.LIVE
        self.state = State.LIVE
        self._hello_wait_s = HELLO_EVERY_S
        self.run = message.run
        self.attempt = message.attempt
        # After a restart of the collector the run that it told us is the one to go on in.
        self.origin = replace(self.origin, run=message.run)
        self._is_labelled |= message.nonce in self._labelled
        self._window = message.window
        self._pace(message.period_s, message.age_s, now)
        if again:
            return []  # to a newer label, or to a hello said twice: what is in flight stays in flight
        self._beat_due_s = self._progress_s = now.s
        self._forget_in_flight()
        return [*self._freed(message.stored, now), GoBack(max(message.watermark, self._outbox.acknowledged))]

    def _pace(self, period_s: float, age_s: float, now: Moment) -> None:
        self.period_s, self.age_s = max(period_s, MIN_PERIOD_S), max(age_s, 0.0)
        self._beat_due_s = min(self._beat_due_s, now.s + self.period_s)

    def _freed(self, stored: int, now: Moment) -> list[Action]:
        while self._in_flight and self._in_flight[0][0] <= stored:
            self._in_flight_bytes -= self._in_flight.popleft()[1]
            self._progress_s = now.s
        return [Free(stored)] if stored > self._outbox.acknowledged else []

    def _heartbeat(self, now: Moment) -> Send:
        self._beat_due_s = now.s + self.period_s
        offset, bound = self._clock.best or (None, None)
        low_ts = self._outbox.low_ts  # asked first: what is logged after it is younger
        unsent_ts = self._outbox.oldest_unsent_ts
        return Send(
            Heartbeat(
                self._outbox.head,
                low_ts if unsent_ts is None else min(low_ts, unsent_ts),
                self.revision,
                now.ns,
                dict(self._outbox.dropped),
                offset,
                bound,
            )
        )

    def _set(self, message: Settings, now: Moment) -> list[Action]:
        try:
            leases = [Lease.from_map(dict(values)) for values in message.leases]
        except MessageError as error:
            return [Complain("settings", f"the collector sent settings that cannot be read: {error}")]
        began, ended = self.tenure.replace(leases, now.s)
        self.revision = message.revision
        return [Lay(message.revision, self._mine(), self._covering(began), self._covering(ended))]

    def _mine(self) -> list[Lease]:
        return self._covering(self.tenure.leases)

    def _covering(self, leases: Sequence[Lease]) -> list[Lease]:
        return [lease for lease in leases if lease.covers(self.origin.rank, self.origin.host)]
