"""One stream in a conversation with a collector: whether it is welcome, and what of it is on its way. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final, Protocol

from tlogs_shared.end import End
from tlogs_shared.origin import Origin
from tlogs_shared.protocol.messages import Answer, Hello, Vital

__all__ = ["Held", "Sending", "State"]

HELLO_EVERY_S: Final = 1.0
"""A hello that was not answered is said again: it may have met a collector that was just starting."""

MAX_HELLO_S: Final = 8.0
"""Each time after twice as long, up to this: thousands of hosts that start at once must not drown the collector."""

REFUSED_EVERY_S: Final = 5.0
"""After a refusal: what is wrong may be put right while the job runs."""


class State(Enum):
    """Where the conversation about a stream stands."""

    WAITING = "waiting"
    LIVE = "connected"
    REFUSED = "refused"


class Held(Protocol):
    """What the link reads of a stream's outbox and its process."""

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
        """The time of the oldest record that was not handed out for sending; None where there is no such record."""

    @property
    def dropped(self) -> Mapping[int, int]:
        """Records that found no room, counted by level."""

    def vital(self) -> Vital | None:
        """How the process is, None where that is not known."""


@dataclass(slots=True)
class Sending:
    """One stream. `answers` and `report` are what became of the settings of `revision`, None before there were any."""

    stream: bytes
    origin: Origin
    source: Held
    recovering: bool
    hello_due_s: float
    state: State = State.WAITING
    run: str | None = None
    attempt: int = 0
    window: int = 0
    revision: int = 0
    answers: Mapping[int, Answer] | None = None
    report: bytes = b""
    is_labelled: bool = True
    has_died: bool = False
    has_ended: bool = False
    end: End | None = None
    is_leaving: bool = False
    bye_due_s: float = 0.0
    in_flight_bytes: int = 0
    _in_flight: deque[tuple[int, int]] = field(default_factory=deque)
    _progress_s: float = 0.0
    _hello_wait_s: float = HELLO_EVERY_S

    @property
    def room(self) -> int:
        """How many bytes may be sent now."""
        return max(self.window - self.in_flight_bytes, 0) if self.state is State.LIVE else 0

    @property
    def due_s(self) -> float:
        """When there is something to do for this stream."""
        if self.state is not State.LIVE or not self.is_labelled:
            return self.hello_due_s
        return self.bye_due_s if self.has_ended and self.source.acknowledged >= self.source.head else float("inf")

    def is_stalled(self, now_s: float, stall_s: float) -> bool:
        """Return True if nothing was acknowledged for *stall_s* though something is in flight."""
        return bool(self._in_flight) and now_s - self._progress_s > stall_s

    def hello(self, now_s: float, jitter: float) -> Hello:
        """The next hello: ever more seldom, and not from all hosts at once."""
        self.hello_due_s = now_s + self._hello_wait_s * (0.75 + jitter / 2)
        self._hello_wait_s = min(2 * self._hello_wait_s, MAX_HELLO_S)
        return Hello(self.stream, self.origin, self.source.head, self.source.acknowledged, self.recovering)

    def welcomed(self, run: str, attempt: int, window: int, now_s: float) -> None:
        """The collector knows this stream; after a restart of it the run that it named is the one to go on in."""
        if self.state is not State.LIVE:
            self._progress_s = now_s
        self.state, self._hello_wait_s = State.LIVE, HELLO_EVERY_S
        self.run, self.attempt, self.window = run, attempt, window
        self.origin = replace(self.origin, run=run)
        self.is_labelled = True

    def sent(self, end: int, size: int, now_s: float) -> None:
        """A batch of *size* bytes that ends before number *end* is on its way."""
        if not self._in_flight:
            self._progress_s = now_s
        self._in_flight.append((end, size))
        self.in_flight_bytes += size

    def freed(self, stored: int, now_s: float) -> int:
        """What is below *stored* has arrived; return how many bytes are not in flight any more."""
        before = self.in_flight_bytes
        while self._in_flight and self._in_flight[0][0] <= stored:
            self.in_flight_bytes -= self._in_flight.popleft()[1]
            self._progress_s = now_s
        return before - self.in_flight_bytes

    def forget_in_flight(self) -> int:
        """Nothing is in flight any more; return how many bytes were."""
        before, self.in_flight_bytes = self.in_flight_bytes, 0
        self._in_flight.clear()
        return before

    def wait(self, now_s: float) -> int:
        """Say hello anew, at once; return as `forget_in_flight`."""
        self.state, self.hello_due_s, self._hello_wait_s = State.WAITING, now_s, HELLO_EVERY_S
        self.is_leaving = False
        return self.forget_in_flight()

    def refuse(self, now_s: float) -> int:
        """The collector said no; return as `forget_in_flight`."""
        found = self.wait(now_s)
        self.state, self.hello_due_s = State.REFUSED, now_s + REFUSED_EVERY_S
        return found
