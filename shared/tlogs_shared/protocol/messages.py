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
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, TypeAlias

from tlogs_shared.origin import Origin
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

Count: TypeAlias = Annotated[int, range(MAX_COUNT)]
"""How many, or the number of a record in its stream."""

Answer: TypeAlias = tuple[str, str]
"""What became of a lease on a rank, and why: `applied`, `ignored` or `failed`, and a reason."""


@dataclass(frozen=True, slots=True)
class Hello:
    """Rank: I am this stream; said again with a newer `origin` where a label was learnt late.

    `head` is the number that the next record gets, `first` the oldest number that can still be supplied. `recovering`
    says that the speaker is not the process itself but brings in the outbox it left.
    """

    stream: bytes
    origin: Origin
    head: Count
    first: Count
    nonce: bytes
    recovering: bool = False


@dataclass(frozen=True, slots=True)
class Proof:
    """Rank or operator: the answer to `Challenge`."""

    proof: bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """Rank: records."""

    header: Header
    payload: bytes


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Rank: where I am.

    `low_ts` promises that nothing older will follow; `revision` is the settings in force here; `sent_ns` is the
    wall clock at the sending, `offset_ns` with `bound_ns` the best estimate of what to add to this clock to get the
    collector's, None before there is one.
    """

    head: Count
    low_ts: int
    revision: Count
    sent_ns: int
    dropped: Mapping[int, Count] = field(default_factory=dict)
    offset_ns: int | None = None
    bound_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Applied:
    """Rank: this is what became of the settings of `revision`.

    `answers` has for each lease in my scope, by its revision, `[kind, reason]` with the kinds `applied`, `ignored`
    and `failed`; `report` is the levels in force, as `tlogs levels` shows them: a map as bytes (`wire.pack_plain`),
    which the collector keeps and hands on without looking inside.
    """

    revision: Count
    answers: Mapping[int, Answer]
    report: bytes


@dataclass(frozen=True, slots=True)
class Bye:
    """Rank: I end here; `head` and `dropped` are final."""

    head: Count
    dropped: Mapping[int, Count] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Challenge:
    """Collector: prove that you have the secret; `proof` shows that I have it."""

    nonce: bytes
    proof: bytes


@dataclass(frozen=True, slots=True)
class Welcome:
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
    period_s: float
    age_s: float
    nonce: bytes = b""
    proof: bytes = b""


@dataclass(frozen=True, slots=True)
class Ack:
    """Collector: everything below `stored` is safe."""

    stored: Count
    window: Count


@dataclass(frozen=True, slots=True)
class Rewind:
    """Collector: that batch does not begin at `watermark`; send from there."""

    watermark: Count


@dataclass(frozen=True, slots=True)
class Beat:
    """Collector: your heartbeat sent at `sent_ns` came at `received_ns`, answered at `replied_ns`."""

    sent_ns: int
    received_ns: int
    replied_ns: int
    period_s: float
    age_s: float


@dataclass(frozen=True, slots=True)
class Settings:
    """Collector: the desired state, whole. `leases` are maps as `Lease.as_map` makes them."""

    revision: Count
    leases: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Stranger:
    """Collector: I do not know this connection; say hello."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Collector: no, and why. `code` is `access`, `version`, `run`, `protocol` or `closing`."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Ask:
    """Operator: a question, `hello`, `runs`, `ranks` or `levels`; a `hello` opens the conversation."""

    number: int
    what: str
    nonce: bytes = b""
    run: str | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """Operator: a lease (`Lease.as_map`), or the end of some (`ends`; an empty list ends all).

    The report comes when every rank in scope has answered, after `timeout_s` at the latest. Changes of a run with the
    same `once`, unless it is "", are one change: ranks that ask for the same lease at the same point of their program.
    `author` is who ends leases; a new lease names its own.
    """

    number: int
    run: str | None
    timeout_s: float
    lease: Mapping[str, Any] | None = None
    ends: Sequence[int] | None = None
    once: str = ""
    author: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """Collector: the answer to question `number`; `error` is a sentence for the operator, else "" and `data` holds."""

    number: int
    error: str
    data: Any


@dataclass(frozen=True, slots=True)
class Follow:
    """Operator: tell me about new records of `run` (None: the newest live one, `*`: all of this daemon's)."""

    run: str | None


@dataclass(frozen=True, slots=True)
class News:
    """Collector: `run` is stored up to `offset` in `segment`; nothing older than `horizon_ns` is still to come.

    `live` is False once no rank of the run can still speak; `closing` is True when the daemon ends and this is the
    last word. The run was stored up to `begin_offset` in `begin_segment` when this daemon began to write it.
    """

    run: str
    segment: int
    offset: int
    horizon_ns: int
    live: bool
    closing: bool
    begin_segment: int = 0
    begin_offset: int = 0


@dataclass(frozen=True, slots=True)
class Fetch:
    """Operator: bytes of a segment (`what` "bytes"), or the headers of the frames from there on ("index")."""

    number: int
    run: str
    what: str
    segment: Count
    offset: Count
    size: Count


@dataclass(frozen=True, slots=True)
class Page:
    """Collector: the answer to `Fetch` question `number`."""

    number: int
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
