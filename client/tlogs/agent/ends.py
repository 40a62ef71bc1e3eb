"""How a worker ended, from all that is known of it, and the words for it. Pure.

What the worker has said itself counts first (a bye, an exception that nobody caught), then the kernel's word. Where
the kernel does not say, a worker that said bye has `finished`; one that did not has `ended`, and nobody knows how.
"""

from __future__ import annotations

import signal as signals
from dataclasses import dataclass
from logging import ERROR, INFO, WARNING
from typing import Final

from tlogs_shared.end import ENDED, FAILED, FINISHED, KILLED, End
from tlogs_shared.origin import Origin
from tlogs_shared.storage.record import Fields, pack

__all__ = ["Status", "Word", "end_record", "end_text", "judge"]

LEVELS: Final = {FINISHED: INFO, ENDED: WARNING}
LOGGER: Final = "tlogs"

SHUTDOWN: Final = "shutdown"
"""The reason of a bye whose process goes on without us."""


@dataclass(frozen=True, slots=True)
class Status:
    """What a process ended with: an exit code, or the number of a signal.

    `is_sure` is False for a code of 0 that may only mean that nobody may know.
    """

    code: int | None
    signal: int | None
    is_sure: bool = True

    @classmethod
    def from_wait(cls, status: int, *, is_sure: bool = True) -> Status:
        """Read what `os.waitpid` gives.

        >>> Status.from_wait(9), Status.from_wait(0x300)
        (Status(code=None, signal=9, is_sure=True), Status(code=3, signal=None, is_sure=True))
        """
        signal = status & 0x7F
        return cls(None, signal) if signal else cls(status >> 8 & 0xFF, None, is_sure)


@dataclass(frozen=True, slots=True)
class Word:
    """What a worker has said of its end: the reason of its bye, "" without one, and the exception that it died of."""

    bye: str = ""
    exception: str = ""

    @property
    def goes_on(self) -> bool:
        """True if only the stream has ended."""
        return self.bye == SHUTDOWN


def judge(word: Word, status: Status | None, *, oom: bool, ended_ns: int) -> End:
    """How a worker ended that said *word* and whose process ended with *status*, None if that is not known.

    >>> judge(Word(), Status(None, 9), oom=False, ended_ns=7).as_map()
    {'how': 'killed', 'ended_ns': 7, 'signal': 'SIGKILL'}
    """
    code = None if status is None else status.code
    if word.exception:
        return End(FAILED, code=code or None, exception=word.exception, ended_ns=ended_ns)
    if status is not None and status.signal is not None:
        return End(KILLED, signal=_name(status.signal), oom=oom, ended_ns=ended_ns)
    if code:
        return End(FAILED, code=code, ended_ns=ended_ns)
    if word.bye or (status is not None and status.is_sure):
        return End(FINISHED, code=code, ended_ns=ended_ns)
    return End(ENDED, ended_ns=ended_ns)


def _name(number: int) -> str:
    """The signal's name, as `kill -l` has it.

    >>> _name(11), _name(64)
    ('SIGSEGV', 'SIGRTMAX')
    """
    try:
        return signals.Signals(number).name
    except ValueError:
        return f"signal {number}"


def end_record(end: End, origin: Origin, attempt: int, after_ts: int) -> tuple[int, int, bytes]:
    """Time, level and bytes of the record that tells of an end; the record before it is of *after_ts*."""
    ts = max(after_ts, end.ended_ns)
    extra = {"stream": "tlogs", "fields": {"end": end.as_map()}}
    level = LEVELS.get(end.how, ERROR)
    text = end_text(end, origin, attempt)
    return ts, level, pack(Fields(ts, level, LOGGER, text, None, None, "", 0, "", "", extra))


def end_text(end: End, origin: Origin, attempt: int) -> str:
    """What the record says.

    >>> end_text(End("killed", signal="SIGKILL"), Origin("n1", 16962, rank=2), 0)
    'rank 2 attempt 0 was killed by SIGKILL (pid 16962); its last words are above'
    """
    what = {
        FINISHED: "finished",
        ENDED: "ended",
        FAILED: f"failed with {end.reason}" if end.exception is None else f"failed: {end.exception}",
        KILLED: f"was killed by {end.reason}",
    }[end.how]
    why = "; how is not known on this kernel" if end.how == ENDED else ""
    more = "" if end.how == FINISHED else "; its last words are above"
    return f"rank {origin.rank} attempt {attempt} {what} (pid {origin.pid}){why}{more}"
