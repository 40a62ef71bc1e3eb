"""How a worker ended, from all that is known of it, and the words for it. Pure.

What the worker has said itself counts first (a bye, an exception that nobody caught), then the kernel's word. Where
the kernel does not say, a worker that said bye has `finished`; one that did not has `ended`, and nobody knows how.
"""

from __future__ import annotations

import signal as signals
from dataclasses import dataclass
from logging import ERROR, INFO, WARNING
from typing import Any, Final

from tlogs_shared.origin import Origin

__all__ = ["ENDED", "FAILED", "FINISHED", "KILLED", "End", "Status", "Word", "judge"]

FINISHED: Final = "finished"
FAILED: Final = "failed"
KILLED: Final = "killed"
ENDED: Final = "ended"

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


@dataclass(frozen=True, slots=True)
class End:
    """How a worker ended and when; what is not known is None."""

    how: str
    ended_ns: int
    code: int | None = None
    signal: str | None = None
    oom: bool = False
    exception: str | None = None

    def as_map(self) -> dict[str, Any]:
        """The end as it travels: what is not known is left out."""
        found: dict[str, Any] = {"how": self.how, "ended_ns": self.ended_ns}
        for name in ("code", "signal", "exception"):
            if (value := getattr(self, name)) is not None:
                found[name] = value
        return {**found, "oom": True} if self.oom else found

    @property
    def level(self) -> int:
        """The level of the record that tells of it."""
        return {FINISHED: INFO, ENDED: WARNING}.get(self.how, ERROR)

    def text(self, origin: Origin, attempt: int) -> str:
        """The record that tells of it, as the last one of the stream.

        >>> End("killed", 0, signal="SIGKILL").text(Origin("n1", 16962, rank=2), 0)
        'rank 2 attempt 0 was killed by SIGKILL (pid 16962); its last words are above'
        """
        what = {
            FINISHED: "finished",
            FAILED: f"failed: {self.exception}" if self.exception else f"failed with exit status {self.code}",
            KILLED: f"was killed by {self.signal}" + (", out of memory" if self.oom else ""),
            ENDED: "ended",
        }[self.how]
        why = "; how is not known on this kernel" if self.how == ENDED else ""
        more = "" if self.how == FINISHED else "; its last words are above"
        return f"rank {origin.rank} attempt {attempt} {what} (pid {origin.pid}){why}{more}"


def judge(word: Word, status: Status | None, *, oom: bool, ended_ns: int) -> End:
    """How a worker ended that said *word* and whose process ended with *status*, None if that is not known.

    >>> judge(Word(), Status(None, 9), oom=False, ended_ns=7).as_map()
    {'how': 'killed', 'ended_ns': 7, 'signal': 'SIGKILL'}
    """
    code = None if status is None else status.code
    if word.exception:
        return End(FAILED, ended_ns, code=code or None, exception=word.exception)
    if status is not None and status.signal is not None:
        return End(KILLED, ended_ns, signal=_name(status.signal), oom=oom)
    if code:
        return End(FAILED, ended_ns, code=code)
    if word.bye or (status is not None and status.is_sure):
        return End(FINISHED, ended_ns, code=code)
    return End(ENDED, ended_ns)


def _name(number: int) -> str:
    """The signal's name, as `kill -l` has it.

    >>> _name(11), _name(64)
    ('SIGSEGV', 'SIGRTMAX')
    """
    try:
        return signals.Signals(number).name
    except ValueError:
        return f"signal {number}"
