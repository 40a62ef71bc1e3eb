"""One stream as the collector sees it: its numbers, its life, its settings.

Pure: times are arguments. A batch is taken if and only if its first number is the stream's watermark, so that
whatever is sent twice, re-cut or recovered can never be stored twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from tlogs_shared.end import RUNNING, STARTING, End
from tlogs_shared.origin import StreamInfo
from tlogs_shared.protocol.clock import Moment
from tlogs_shared.protocol.messages import Answer, AppliedRow, Pulse, Vital
from tlogs_shared.storage.batch import Header

__all__ = ["Peer", "Verdict"]

LATE_PERIODS: Final = 3
GONE_PERIODS: Final = 10
MIN_PERIOD_S: Final = 1.0
"""Heartbeats may come faster while someone follows; a peer is not called late for that."""

SURE_BOUND_NS: Final = 1_000_000
"""A clock offset known to the millisecond is fixed at once, a worse one after some more exchanges."""

ENOUGH_EXCHANGES: Final = 5


class Verdict(Enum):
    """What to do with a batch."""

    TAKE = "take"
    HAVE = "have"
    """All of it is stored already: say so."""
    REWIND = "rewind"
    """Something before it is missing: tell the sender where to go on."""
    IGNORE = "ignore"
    """The sender was told already."""


@dataclass(slots=True)
class Peer:
    """What is known of one stream.

    `watermark` is the number below which everything was taken, `stored` the number below which everything is safe.
    `gap` is how many numbers before the watermark will never come; they count as lost once a record behind them is
    stored, since until then a restarted collector would find the same gap again. `revision` is the settings in force
    on the rank, `answered` those that its `answers` and `report` are about. `is_deserted` says that it
    ended without a bye, and that nobody has brought in its outbox.
    """

    stream: bytes
    run: str
    info: StreamInfo
    watermark: int = 0
    stored: int = 0
    gap: int = 0
    records: int = 0
    connection: bytes | None = None
    recovering: bool = False
    is_deserted: bool = False
    heard_s: float = 0.0
    low_ts: int = 0
    last_record_ns: int | None = None
    revision: int = 0
    answered: int = -1
    answers: Mapping[int, Answer] = field(default_factory=dict)
    report: bytes = b""
    offset_ns: int | None = None
    exchanges: int = 0
    vital: Vital | None = None
    rewound_to: int | None = None

    @property
    def rank(self) -> int | None:
        """The rank that this stream is labelled with."""
        return self.info.origin.rank

    @property
    def is_rank(self) -> bool:
        """Whether this is a rank itself: no helper of one, no launcher."""
        return self.info.is_rank

    @property
    def is_open(self) -> bool:
        """Whether this stream may still speak."""
        return self.info.end is None

    @property
    def dropped(self) -> int:
        """Records that the rank itself had no room for."""
        return sum(self.info.dropped.values())

    @property
    def lost(self) -> int:
        """Numbers that were heard of and will not come, once the stream has ended."""
        return self.info.lost + self.gap + max(0, self.info.head - self.watermark)

    def judge(self, header: Header) -> Verdict:
        """What to do with this batch; a taken one moves the watermark."""
        if header.first == self.watermark and header.count > 0:
            self.watermark = header.end
            self.records += header.count
            if self.gap:
                self.info, self.gap = replace(self.info, lost=self.info.lost + self.gap), 0
            self.low_ts = max(self.low_ts, header.low_ts)
            self.last_record_ns = header.last_ts
            self.rewound_to = None
            if header.end > self.info.head:
                self.info = replace(self.info, head=header.end)
            return Verdict.TAKE
        if header.end <= self.watermark:
            return Verdict.HAVE
        if self.rewound_to == self.watermark:
            return Verdict.IGNORE
        self.rewound_to = self.watermark
        return Verdict.REWIND

    def untake(self, header: Header) -> None:
        """The store could not take this batch after all: go back before it."""
        if header.first < self.watermark:
            self.records -= self.watermark - header.first
            self.watermark = header.first
        self.rewound_to = self.watermark

    def resume(self, first: int) -> None:
        """A sender that can supply numbers from *first* on says hello; those before are lost for good."""
        self.rewound_to = None
        if first > self.watermark:
            self.gap += first - self.watermark
            self.watermark = first

    def go_back(self, watermark: int, records: int) -> None:
        """The store turned out to have only so much."""
        self.watermark = self.stored = watermark
        self.records = records
        self.gap = 0
        self.rewound_to = None

    def applied(self, message: AppliedRow) -> None:
        """Take in what became of the settings."""
        self.revision = self.answered = message.revision
        self.answers, self.report = message.answers, message.report

    def beat(self, pulse: Pulse, clock: tuple[int | None, int | None] | None) -> bool:
        """Take in a row of a heartbeat; return True where what is known of the stream changed and should be stored.

        *clock* is the offset of its host's clock and that offset's bound, None on the collector's own host.
        """
        self.low_ts = max(self.low_ts, pulse.low_ts)
        self.revision = pulse.revision
        self.vital = pulse.vital
        changed = dict(pulse.dropped) != dict(self.info.dropped)
        self.info = replace(self.info, head=max(self.info.head, pulse.head), dropped=dict(pulse.dropped))
        offset_ns, bound_ns = clock or (None, None)
        if offset_ns is None or bound_ns is None:
            return changed
        self.offset_ns = offset_ns
        self.exchanges += 1
        sure = bound_ns <= SURE_BOUND_NS or self.exchanges >= ENOUGH_EXCHANGES
        if self.info.bound_ns is None and sure:
            # Fixed once, so that two reads of the run give the same order; used only where it exceeds its error.
            offset = offset_ns if abs(offset_ns) > bound_ns else None
            self.info = replace(self.info, offset_ns=offset, bound_ns=bound_ns)
            changed = True
        return changed

    def end(self, end: End) -> None:
        """The stream has ended, so."""
        self.info = replace(self.info, end=end, lost=self.info.lost + self.gap)
        self.gap = 0
        self.connection = None
        self.recovering = False
        self.report = b""  # of levels that are no more; a long job has many streams that ended

    @property
    def state(self) -> str:
        """`starting running finished failed killed ended silent`, as `tlogs ranks` shows it."""
        if self.info.end is not None:
            return self.info.end.how
        return RUNNING if self.records else STARTING

    def last_heard_ns(self, now: Moment) -> int:
        """When it was last heard of, by its own host's clock."""
        return now.ns - int((now.s - self.heard_s) * 1e9) - (self.info.offset_ns or 0)

    def is_late(self, now_s: float, period_s: float) -> bool:
        """Whether heartbeats are missing."""
        return now_s - self.heard_s > LATE_PERIODS * max(period_s, MIN_PERIOD_S)

    def is_gone(self, now_s: float, period_s: float) -> bool:
        """Whether heartbeats have been missing for so long that it is not expected back."""
        return now_s - self.heard_s > GONE_PERIODS * max(period_s, MIN_PERIOD_S)
