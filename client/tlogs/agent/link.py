"""The agent's side of a conversation with a collector: every decision, for all streams of this host. Pure.

Theory of operation
-------------------
`handle(message, now)` and `tick(now)` return actions, which the conversation carries out. The link holds no records:
it reads from each stream's source which numbers there are, and moves two marks in it. *Rewind* says from which number
on to send again, *Free* below which number everything is safe.

Each stream is WAITING (hello is said again and again until a welcome comes), LIVE, or REFUSED (as WAITING, at a slower
pace, after the collector said no). A collector that falls silent, forgets a stream (`Stranger`) or acknowledges
nothing for a while sends it back to WAITING, and the next welcome says from where to go on. That one path serves a
restarted collector, a cut network and a lost message alike.

A stream that has ended stays until all of it is acknowledged; only then the bye, whose acknowledgement ends it.

Whoever answers is believed only once it has named the instance of the collector that was dialled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

from tlogs.agent.sending import Held, Sending, State
from tlogs_shared.end import End
from tlogs_shared.origin import Origin
from tlogs_shared.protocol.clock import ClockEstimate, Moment
from tlogs_shared.protocol.messages import (
    Ack,
    Answer,
    Applied,
    AppliedRow,
    Beat,
    Bye,
    Heartbeat,
    Message,
    Pulse,
    Refused,
    Report,
    Rewind,
    Settings,
    Stranger,
    Welcome,
)

__all__ = ["Action", "Complain", "Done", "Free", "Inform", "Link", "Redial", "Reply", "Rewound", "Send", "Tell"]

SILENCE_PERIODS: Final = 5
"""After so many heartbeats without any answer the collector counts as out of reach."""

MIN_SILENCE_S: Final = 3.0
MIN_PERIOD_S: Final = 0.02
"""Whatever a collector asks for, a host does not heartbeat faster."""

STALL_S: Final = 10.0
"""No acknowledgement for so long while something is in flight: ask where the collector stands."""

BYE_EVERY_S: Final = 1.0
MAX_IN_FLIGHT: Final = 16 * 1024 * 1024
"""Bytes of all streams together: what the socket may have to keep for a collector that reads slowly."""

CLOSING: Final = "closing"
"""The code of a collector that is about to end."""

MAX_ROWS: Final = 4096
"""Streams in one message."""

MAX_REPORTS_BYTES: Final = 4 * 1024 * 1024
"""Of reports in one message."""


@dataclass(frozen=True, slots=True)
class Send:
    """Put this on the socket; a refusal is told to the link by `unsent`."""

    message: Message


@dataclass(frozen=True, slots=True)
class Rewound:
    """Send this stream from this number on (again)."""

    stream: bytes
    watermark: int


@dataclass(frozen=True, slots=True)
class Free:
    """Everything below this number of the stream is safe."""

    stream: bytes
    stored: int


@dataclass(frozen=True, slots=True)
class Tell:
    """Where the records of this stream go has changed: tell its worker."""

    stream: bytes


@dataclass(frozen=True, slots=True)
class Inform:
    """Hand these settings to the workers of these streams, and tell the link by `applied` what became of them."""

    streams: Sequence[bytes]
    revision: int
    leases: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Reply:
    """The collector's answer to a change that a worker asked for."""

    report: Report


@dataclass(frozen=True, slots=True)
class Done:
    """The collector has this stream whole, and knows of its end."""

    stream: bytes


@dataclass(frozen=True, slots=True)
class Complain:
    """Tell the person at the terminal of this stream (None: of all), once a code."""

    stream: bytes | None
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Redial:
    """Give this connection up, and connect anew."""

    why: str


Action: TypeAlias = Send | Rewound | Free | Tell | Inform | Reply | Done | Complain | Redial


@dataclass(slots=True)
class Link:
    """All streams of this host that go to one collector.

    `jitter` gives numbers from 0 to 1. `instance` is the life of the collector that is dialled, "" where that is not
    known.
    """

    jitter: Callable[[], float]
    instance: str = ""
    period_s: float = 1.0
    age_s: float = 0.02
    streams: dict[bytes, Sending] = field(default_factory=dict)
    in_flight: int = 0
    has_answered: bool = False
    _heard_s: float = 0.0
    _beat_due_s: float = 0.0
    _clock: ClockEstimate = field(default_factory=ClockEstimate)
    _settings: dict[str, Settings] = field(default_factory=dict)
    _unreported: set[bytes] = field(default_factory=set)

    # What the conversation tells.

    def add(self, stream: bytes, origin: Origin, source: Held, now: Moment, *, recovering: bool = False) -> None:
        """Send this stream too; *recovering* if its process had ended before."""
        self.drop(stream)
        self.streams[stream] = Sending(stream, origin, source, recovering, hello_due_s=now.s)

    def drop(self, stream: bytes) -> None:
        """Forget this stream."""
        if (one := self.streams.pop(stream, None)) is not None:
            self.in_flight -= one.in_flight_bytes
            self._unreported.discard(stream)

    def connected(self, instance: str, now: Moment) -> list[Action]:
        """A new connection is being made, to the collector of this instance."""
        self.instance, self.has_answered = instance, False
        return [action for one in self.streams.values() for action in self._wait(one, now)]

    def room(self, stream: bytes) -> int:
        """How many bytes of it may be sent now; a window that is not used up admits one whole batch."""
        return 0 if self.in_flight >= MAX_IN_FLIGHT else self.streams[stream].room

    def sent(self, stream: bytes, end: int, size: int, now: Moment) -> None:
        """A batch of *size* bytes is on its way; *end* is the number after its last record."""
        self.streams[stream].sent(end, size, now.s)
        self.in_flight += size

    def unsent(self, message: Message, now: Moment) -> None:
        """The socket did not take *message*."""
        for one in self.streams.values():
            one.hello_due_s = max(one.hello_due_s, now.s + 0.1)

    def relabel(self, stream: bytes, origin: Origin, now: Moment) -> None:
        """A label was learnt late: say hello with it until a welcome answers that."""
        one = self.streams[stream]
        one.origin = replace(origin, run=one.origin.run)
        one.is_labelled = False
        one.hello_due_s = now.s

    def applied(self, stream: bytes, revision: int, answers: Mapping[int, Answer], report: bytes) -> None:
        """What became of settings in the process of this stream."""
        if (one := self.streams.get(stream)) is not None:
            one.revision, one.answers, one.report = revision, answers, report
            self._unreported.add(stream)

    def died(self, stream: bytes) -> None:
        """The process of this stream has ended; what it left is still to be sent."""
        if (one := self.streams.get(stream)) is not None:
            one.has_died = True

    def end(self, stream: bytes, end: End | None) -> None:
        """Nothing more comes of this stream; *end* is how its process ended, None if it goes on without us."""
        one = self.streams[stream]
        one.has_ended, one.end = True, end

    # Events.

    def due_s(self) -> float:
        """When `tick` next has something to do, in seconds of the monotonic clock."""
        due = [one.due_s for one in self.streams.values()]
        if any(one.state is State.LIVE for one in self.streams.values()):
            due.append(self._beat_due_s)
        return min(due, default=float("inf"))

    def tick(self, now: Moment) -> list[Action]:
        """What the passing of time asks for."""
        actions: list[Action] = []
        live = [one for one in self.streams.values() if one.state is State.LIVE]
        if live and now.s - self._heard_s > max(MIN_SILENCE_S, SILENCE_PERIODS * self.period_s):
            for one in live:
                actions += self._wait(one, now)
            return [*actions, Redial("the collector does not answer any more")]
        for one in live:
            if one.is_stalled(now.s, STALL_S):
                actions += self._wait(one, now)
            elif one.has_ended and now.s >= one.bye_due_s and one.source.acknowledged >= one.source.head:
                one.bye_due_s = now.s + BYE_EVERY_S
                one.is_leaving = True
                actions.append(Send(Bye(one.stream, one.source.head, dict(one.source.dropped), one.end)))
        if live and now.s >= self._beat_due_s:
            actions += self._heartbeat(now)
        if self._unreported:
            actions += self._report()
        for one in self.streams.values():
            if now.s >= one.hello_due_s and (one.state is not State.LIVE or not one.is_labelled):
                actions.append(Send(one.hello(now.s, self.jitter())))
        return actions

    def handle(self, message: Message, now: Moment) -> list[Action]:
        """What a message from the collector asks for; one that no collector sends is skipped."""
        if not self.has_answered and not isinstance(message, Welcome | Refused):
            return []
        self._heard_s = now.s
        match message:
            case Welcome():
                return self._welcomed(message, now)
            case Ack():
                return [
                    action for stream, stored in message.rows for action in self._acked(stream, stored, message, now)
                ]
            case Rewind(stream, watermark):
                return self._rewound(stream, watermark, now)
            case Beat():
                self._clock.add(message.sent_ns, message.received_ns, message.replied_ns, now.ns, now.s)
                self._pace(message.period_s, message.age_s, now)
            case Settings():
                return self._set(message)
            case Stranger(stream):
                return [action for one in self._meant(stream) for action in self._wait(one, now)]
            case Refused():
                return self._refused(message, now)
            case Report():
                return [Reply(message)]
            case _:
                pass
        return []

    # The parts.

    def _meant(self, stream: bytes) -> Iterable[Sending]:
        """This stream; with an empty name, all."""
        if not stream:
            return list(self.streams.values())
        one = self.streams.get(stream)
        return [] if one is None else [one]

    def _wait(self, one: Sending, now: Moment) -> list[Action]:
        was_live = one.state is State.LIVE
        self.in_flight -= one.wait(now.s)
        return [Tell(one.stream)] if was_live else []

    def _welcomed(self, message: Welcome, now: Moment) -> list[Action]:
        if self.instance and message.instance != self.instance:
            return [Redial("another collector answers there than the one that was dialled")]
        self.has_answered = True
        one = self.streams.get(message.stream)
        if one is None:
            return []
        again = one.state is State.LIVE
        one.welcomed(message.run, message.attempt, message.window, now.s)
        self._pace(message.period_s, message.age_s, now)
        if again:
            return []  # to a newer label, or to a hello said twice: what is in flight stays in flight
        # Pulses of streams that are not live yet are left out, so the next heartbeat must not wait a whole period.
        self._beat_due_s = min(self._beat_due_s, now.s + self.period_s)
        actions: list[Action] = [Tell(one.stream), *self._freed(one, message.stored, now)]
        return [*actions, Rewound(one.stream, max(message.watermark, one.source.acknowledged))]

    def _pace(self, period_s: float, age_s: float, now: Moment) -> None:
        self.period_s, self.age_s = max(period_s, MIN_PERIOD_S), max(age_s, 0.0)
        self._beat_due_s = min(self._beat_due_s, now.s + self.period_s)

    def _acked(self, stream: bytes, stored: int, message: Ack, now: Moment) -> list[Action]:
        one = self.streams.get(stream)
        if one is None or one.state is not State.LIVE:
            return []
        one.window = message.window
        if one.is_leaving and stored >= one.source.head:
            return [Done(stream)]
        return self._freed(one, stored, now)

    def _freed(self, one: Sending, stored: int, now: Moment) -> list[Action]:
        self.in_flight -= one.freed(stored, now.s)
        if stored <= one.source.acknowledged:
            return []
        one.bye_due_s = now.s
        return [Free(one.stream, stored)]

    def _rewound(self, stream: bytes, watermark: int, now: Moment) -> list[Action]:
        one = self.streams.get(stream)
        if one is None or one.state is not State.LIVE:
            return []
        self.in_flight -= one.forget_in_flight()
        if watermark < one.source.acknowledged:
            # The collector lost what it had acknowledged: the hello says what can still be had.
            return self._wait(one, now)
        return [Rewound(stream, watermark)]

    def _refused(self, message: Refused, now: Moment) -> list[Action]:
        actions: list[Action] = []
        for one in self._meant(message.stream):
            if message.code == CLOSING and one.has_died and not one.recovering:
                # A collector that is about to end takes no newcomer, but what a dead process left.
                one.recovering = True
                return self._wait(one, now)
            self.in_flight -= one.refuse(now.s)
            actions.append(Tell(one.stream))
        return [*actions, Complain(message.stream or None, message.code, message.text)]

    def _heartbeat(self, now: Moment) -> list[Action]:
        self._beat_due_s = now.s + self.period_s
        offset, bound = self._clock.best or (None, None)
        rows = [_pulse(one) for one in self.streams.values() if one.state is State.LIVE]
        return [
            Send(Heartbeat(now.ns, offset, bound, rows[start : start + MAX_ROWS]))
            for start in range(0, len(rows), MAX_ROWS)
        ]

    def _set(self, message: Settings) -> list[Action]:
        """New settings of a run; those that a worker has answered already were sent since the answer was lost."""
        known = self._settings.get(message.run)
        self._settings[message.run] = message
        same = known is not None and known.revision == message.revision and _names(known) == _names(message)
        due: list[bytes] = []
        for one in self.streams.values():
            if one.run == message.run and not one.has_ended and not one.recovering:
                if same and one.revision == message.revision and one.answers is not None:
                    self._unreported.add(one.stream)
                else:
                    due.append(one.stream)
        return [Inform(due, message.revision, message.leases)] if due else []

    def settings_of(self, stream: bytes) -> Settings | None:
        """The settings in force in its run, None before the collector has named them: for a worker that is back."""
        run = self.streams[stream].run
        return None if run is None else self._settings.get(run)

    def _report(self) -> list[Action]:
        """What has become of settings since the last time; equal answers share a row."""
        groups: dict[Any, list[bytes]] = {}
        for stream in sorted(self._unreported):
            one = self.streams[stream]
            if one.answers is not None and one.state is State.LIVE:  # else the collector asks again
                key = one.revision, tuple(sorted(one.answers.items())), one.report
                groups.setdefault(key, []).append(stream)
        self._unreported.clear()
        actions: list[Action] = []
        rows: list[AppliedRow] = []
        size = 0
        for (revision, answers, report), streams in groups.items():
            for start in range(0, len(streams), MAX_ROWS):
                rows.append(AppliedRow(streams[start : start + MAX_ROWS], revision, dict(answers), report))
                size += len(report)
                if size > MAX_REPORTS_BYTES or len(streams) >= MAX_ROWS:
                    actions.append(Send(Applied(rows)))
                    rows, size = [], 0
        return [*actions, Send(Applied(rows))] if rows else actions


def _pulse(one: Sending) -> Pulse:
    source = one.source
    low_ts = source.low_ts  # asked first: what is logged after it is younger
    unsent_ts = source.oldest_unsent_ts
    low_ts = low_ts if unsent_ts is None else min(low_ts, unsent_ts)
    return Pulse(one.stream, source.head, low_ts, one.revision, dict(source.dropped), source.vital())


def _names(settings: Settings) -> list[tuple[Any, Any]]:
    """What tells leases of one collector from those of one that lost its journal and counts from the start again."""
    return [(lease.get("revision"), lease.get("created_ns")) for lease in settings.leases]
