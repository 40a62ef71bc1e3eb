"""What agents, the collector and operators say to each other.

Each message is a frozen dataclass; `tlogs_shared.protocol.wire` turns it into one frame and back. Who may speak is
decided before anything is said, by the door (`tlogs_collector.listener`). A connection is a host's: an agent speaks
for many streams over it, and names the stream in each message::

    agent                        collector
    Hello            ------->
                     <-------    Welcome, Settings
    Batch, Heartbeat ------->
                     <-------    Ack, Beat, Settings  (Rewind: "I am missing something, go back")
    Applied          ------->
    Bye              ------->
                     <-------    Ack

Nothing here relies on a message arriving: what is not acknowledged is sent again, and every message carries state,
so that the last one says all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, NamedTuple, TypeAlias

from msgspec import Meta, Struct

from tlogs_shared.end import End
from tlogs_shared.origin import MAX_RANK, STREAM_ID_BYTES, Origin
from tlogs_shared.storage.batch import Header

__all__ = [
    "MAX_COUNT",
    "Ack",
    "Answer",
    "Applied",
    "AppliedRow",
    "Ask",
    "Batch",
    "Beat",
    "Bye",
    "Change",
    "Count",
    "Fetch",
    "Follow",
    "Heartbeat",
    "Hello",
    "Message",
    "News",
    "Page",
    "Pulse",
    "Refused",
    "Report",
    "Rewind",
    "Settings",
    "Stranger",
    "Vital",
    "Welcome",
]

MAX_COUNT: Final = 2**48
"""At a million records a second a stream reaches it after nine years; sums over all streams still fit 64 bits."""

Count: TypeAlias = Annotated[int, Meta(ge=0, lt=MAX_COUNT)]
"""How many, or the number of a record in its stream."""

Number: TypeAlias = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
"""What fits 64 bits: times in nanoseconds, and the numbers of questions."""

Seconds: TypeAlias = Annotated[float, Meta(ge=-1e18, le=1e18)]
"""Finite."""

StreamId: TypeAlias = Annotated[bytes, Meta(min_length=STREAM_ID_BYTES, max_length=STREAM_ID_BYTES)]

Answer: TypeAlias = tuple[str, str]
"""What became of a lease on a rank, and why: `applied`, `ignored` or `failed`, and a reason."""


class Fields(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A message whose fields travel as an array; the decoder checks their number, types and bounds."""


class Hello(Fields, frozen=True):
    """Agent: I send this stream; said again with a newer `origin` where a label was learnt late.

    `head` is the number that the next record gets, `first` the oldest number that can still be supplied. `recovering`
    says that its process had ended before its agent first saw it.
    """

    stream: StreamId
    origin: Origin
    head: Count
    first: Count
    recovering: bool = False

    def __post_init__(self) -> None:
        if not 0 <= (self.origin.rank or 0) <= MAX_RANK:
            raise ValueError(f"rank {self.origin.rank}: expected one from 0 to {MAX_RANK}")
        if self.first > self.head:
            raise ValueError(f"a stream that begins at {self.first}, after its end at {self.head}")


@dataclass(frozen=True, slots=True)
class Batch:
    """Agent: records of the stream that the header names."""

    header: Header
    payload: bytes


class Vital(NamedTuple):
    """How a process is: `running`, `blocked` (in the kernel, uninterruptibly) or `stopped`.

    `cpu_ms` is the CPU that it used since the last heartbeat, `unanswered_s` for how long it has not answered its
    agent, 0 where it was not asked.
    """

    state: str
    cpu_ms: Count
    unanswered_s: Seconds


class Pulse(NamedTuple):
    """One stream in a heartbeat.

    `low_ts` promises that nothing older will follow; `revision` is the settings in force in its process.
    """

    stream: StreamId
    head: Count
    low_ts: Number
    revision: Count
    dropped: Mapping[Number, Count]
    vital: Vital | None


class Heartbeat(Fields, frozen=True):
    """Agent: where the streams of this host are.

    `sent_ns` is the wall clock at the sending, `offset_ns` with `bound_ns` the best estimate of what to add to this
    clock to get the collector's, None before there is one.
    """

    sent_ns: Number
    offset_ns: Number | None
    bound_ns: Number | None
    rows: Sequence[Pulse]


class AppliedRow(NamedTuple):
    """What became of the settings of `revision` on these streams, all the same.

    `answers` has for each lease in scope, by its revision, `(kind, reason)` with the kinds `applied`, `ignored` and
    `failed`; `report` is the levels in force, as `tlogs levels` shows them: a map as bytes (`wire.pack_plain`), which
    the collector keeps and hands on without looking inside.
    """

    streams: Sequence[StreamId]
    revision: Count
    answers: Mapping[Number, Answer]
    report: bytes


class Applied(Fields, frozen=True):
    """Agent: what became of settings; streams with the same answers share a row."""

    rows: Sequence[AppliedRow]


class Bye(Fields, frozen=True):
    """Agent: this stream ends; `head` and `dropped` are final.

    `end` is how its process ended, None where it goes on without us.
    """

    stream: StreamId
    head: Count
    dropped: Mapping[Number, Count] = {}
    end: End | None = None


class Welcome(Fields, frozen=True):
    """Collector: go on from `watermark` in this stream.

    `stored` is the number below which everything is safe; `window` is how many bytes of a stream may be
    unacknowledged; `period_s` is the time between heartbeats, `age_s` how old a record may become before it is sent.
    `instance` names this life of the collector, as its notice does.
    """

    stream: StreamId
    run: str
    attempt: Count
    watermark: Count
    stored: Count
    window: Count
    period_s: Seconds
    age_s: Seconds
    instance: str = ""


class Ack(Fields, frozen=True):
    """Collector: in each of these streams everything below the number beside it is safe."""

    rows: Sequence[tuple[StreamId, Count]]
    window: Count


class Rewind(Fields, frozen=True):
    """Collector: the last batch of this stream does not begin at `watermark`; send from there."""

    stream: StreamId
    watermark: Count


class Beat(Fields, frozen=True):
    """Collector: your heartbeat sent at `sent_ns` came at `received_ns`, answered at `replied_ns`."""

    sent_ns: Number
    received_ns: Number
    replied_ns: Number
    period_s: Seconds
    age_s: Seconds


class Settings(Fields, frozen=True):
    """Collector: the desired state of a run, whole. `leases` are maps as `Lease.as_map` makes them."""

    run: str
    revision: Count
    leases: Sequence[Mapping[str, Any]]


class Stranger(Fields, frozen=True):
    """Collector: I do not know this stream on this connection (empty: any); say hello."""

    stream: bytes = b""


class Refused(Fields, frozen=True):
    """Collector: no, and why, to a stream (empty: to the connection).

    `code` is `access`, `version`, `run`, `protocol` or `closing`.
    """

    stream: bytes
    code: str
    text: str


class Ask(Fields, frozen=True):
    """Operator: a question, `hello`, `runs`, `ranks`, `attempts` (the ranks of all) or `levels`.

    A `hello` opens the conversation.
    """

    number: Number
    what: str
    run: str | None = None


class Change(Fields, frozen=True):
    """Operator: a lease (`Lease.as_map`), or the end of some (`ends`; an empty list ends all).

    The report comes when every rank in scope has answered, after `timeout_s` at the latest. Changes of a run with the
    same `once`, unless it is "", are one change: ranks that ask for the same lease at the same point of their program.
    `author` is who ends leases; a new lease names its own.
    """

    number: Number
    run: str | None
    timeout_s: Seconds
    lease: Mapping[str, Any] | None = None
    ends: Sequence[Number] | None = None
    once: str = ""
    author: str = ""


class Report(Fields, frozen=True):
    """Collector: the answer to question `number`; `error` is a sentence for the operator, else "" and `data` holds."""

    number: Number
    error: str
    data: Any


class Follow(Fields, frozen=True):
    """Operator: tell me about new records of `run` (None: the newest live one, `*`: all of this daemon's)."""

    run: str | None


class News(Fields, frozen=True):
    """Collector: `run` is stored up to `offset` in `segment`; nothing older than `horizon_ns` is still to come.

    `live` is False once the run is over: all ranks have ended, what they left is stored, and no restart is expected.
    `closing` is True when the daemon ends and this is the last word. The run was stored up to
    `begin_offset` in `begin_segment` when this daemon began to write it.
    """

    run: str
    segment: Number
    offset: Number
    horizon_ns: Number
    live: bool
    closing: bool
    begin_segment: Number = 0
    begin_offset: Number = 0


class Fetch(Fields, frozen=True):
    """Operator: bytes of a segment (`what` "bytes"), or the headers of the frames from there on ("index")."""

    number: Number
    run: str
    what: str
    segment: Count
    offset: Count
    size: Count


class Page(Fields, frozen=True):
    """Collector: the answer to `Fetch` question `number`."""

    number: Number
    data: bytes


Message: TypeAlias = (
    Hello
    | Batch
    | Heartbeat
    | Applied
    | Bye
    | Welcome
    | Ack
    | Rewind
    | Beat
    | Settings
    | Stranger
    | Refused
    | Ask
    | Change
    | Report
    | Follow
    | News
    | Fetch
    | Page
)
