"""What is said between a rank, the collector and an operator.

Each message is a frozen dataclass; `tlogs_shared.protocol.wire` turns it into frames and back. The comments say who
speaks to whom. A conversation of a rank::

    rank                         collector
    Hello            ------->
                     <-------    Challenge            (only where the collector has a secret)
    Proof            ------->
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
from typing import Annotated, Any, Final, TypeAlias

from msgspec import Meta, Struct

from tlogs_shared.origin import MAX_RANK, STREAM_ID_BYTES, Origin
from tlogs_shared.storage.batch import Header

__all__ = [
    "MAX_COUNT",
    "Ack",
    "Answer",
    "Applied",
    "Ask",
    "Batch",
    "Beat",
    "Bye",
    "Challenge",
    "Change",
    "Count",
    "Fetch",
    "Follow",
    "Heartbeat",
    "Hello",
    "Message",
    "News",
    "Page",
    "Proof",
    "Refused",
    "Report",
    "Rewind",
    "Settings",
    "Stranger",
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
    """Rank: I am this stream; said again with a newer `origin` where a label was learnt late.

    `head` is the number that the next record gets, `first` the oldest number that can still be supplied. `recovering`
    says that the speaker is not the process itself but brings in the outbox it left.
    """

    stream: StreamId
    origin: Origin
    head: Count
    first: Count
    nonce: bytes
    recovering: bool = False

    def __post_init__(self) -> None:
        if not 0 <= (self.origin.rank or 0) <= MAX_RANK:
            raise ValueError(f"rank {self.origin.rank}: expected one from 0 to {MAX_RANK}")
        if self.first > self.head:
            raise ValueError(f"a stream that begins at {self.first}, after its end at {self.head}")


class Proof(Fields, frozen=True):
    """Rank or operator: the answer to `Challenge`."""

    proof: bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """Rank: records."""

    header: Header
    payload: bytes


class Heartbeat(Fields, frozen=True):
    """Rank: where I am.

    `low_ts` promises that nothing older will follow; `revision` is the settings in force here; `sent_ns` is the
    wall clock at the sending, `offset_ns` with `bound_ns` the best estimate of what to add to this clock to get the
    collector's, None before there is one.
    """

    head: Count
    low_ts: Number
    revision: Count
    sent_ns: Number
    dropped: Mapping[Number, Count] = {}
    offset_ns: Number | None = None
    bound_ns: Number | None = None


class Applied(Fields, frozen=True):
    """Rank: this is what became of the settings of `revision`.

    `answers` has for each lease in my scope, by its revision, `[kind, reason]` with the kinds `applied`, `ignored`
    and `failed`; `report` is the levels in force, as `tlogs levels` shows them: a map as bytes (`wire.pack_plain`),
    which the collector keeps and hands on without looking inside.
    """

    revision: Count
    answers: Mapping[Number, Answer]
    report: bytes


class Bye(Fields, frozen=True):
    """Rank: I end here; `head` and `dropped` are final."""

    head: Count
    dropped: Mapping[Number, Count] = {}


class Challenge(Fields, frozen=True):
    """Collector: prove that you have the secret; `proof` shows that I have it."""

    nonce: bytes
    proof: bytes


class Welcome(Fields, frozen=True):
    """Collector: go on from `watermark`.

    `stored` is the number below which everything is safe; `window` is how many bytes may be unacknowledged;
    `period_s` is the time between heartbeats, `age_s` how old a record may become before it is sent.
    `nonce` is that of the hello that this answers, `proof` shows that the collector has the secret, as in `Challenge`.
    """

    run: str
    attempt: Count
    watermark: Count
    stored: Count
    window: Count
    period_s: Seconds
    age_s: Seconds
    nonce: bytes = b""
    proof: bytes = b""


class Ack(Fields, frozen=True):
    """Collector: everything below `stored` is safe."""

    stored: Count
    window: Count


class Rewind(Fields, frozen=True):
    """Collector: that batch does not begin at `watermark`; send from there."""

    watermark: Count


class Beat(Fields, frozen=True):
    """Collector: your heartbeat sent at `sent_ns` came at `received_ns`, answered at `replied_ns`."""

    sent_ns: Number
    received_ns: Number
    replied_ns: Number
    period_s: Seconds
    age_s: Seconds


class Settings(Fields, frozen=True):
    """Collector: the desired state, whole. `leases` are maps as `Lease.as_map` makes them."""

    revision: Count
    leases: Sequence[Mapping[str, Any]]


class Stranger(Fields, frozen=True):
    """Collector: I do not know this connection; say hello."""


class Refused(Fields, frozen=True):
    """Collector: no, and why. `code` is `access`, `version`, `run`, `protocol` or `closing`."""

    code: str
    text: str


class Ask(Fields, frozen=True):
    """Operator: a question, `hello`, `runs`, `ranks` or `levels`; a `hello` opens the conversation."""

    number: Number
    what: str
    nonce: bytes = b""
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

    `live` is False once no rank of the run can still speak; `closing` is True when the daemon ends and this is the
    last word. The run was stored up to `begin_offset` in `begin_segment` when this daemon began to write it.
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
    | Proof
    | Batch
    | Heartbeat
    | Applied
    | Bye
    | Challenge
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
