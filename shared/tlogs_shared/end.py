"""How a process ended, as far as it is known: what `tlogs ranks` shows as a state and its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tlogs_shared.errors import MessageError

__all__ = ["ENDED", "FAILED", "FINISHED", "KILLED", "RUNNING", "SILENT", "STARTING", "End"]

FINISHED: Final = "finished"
FAILED: Final = "failed"
KILLED: Final = "killed"
ENDED: Final = "ended"
SILENT: Final = "silent"
KINDS: Final = (FINISHED, FAILED, KILLED, ENDED, SILENT)

STARTING: Final = "starting"
RUNNING: Final = "running"
"""The states of a process that has not ended: nothing of it has arrived yet, or something has."""

MAX_TEXT: Final = 512
"""Characters of an exception that are kept; its traceback is a record."""


@dataclass(frozen=True, slots=True)
class End:
    """The end of a process.

    `how` is `finished` (it said bye, or its status was 0), `failed` (an uncaught exception, or another status),
    `killed` (by `signal`; `oom` where it was for want of memory), `ended` (gone, and this system does not say how) or
    `silent` (nothing has been heard of it for long, and nobody knows more). `code` is its exit status where that is
    known. `ended_ns` is when, on its host's clock.
    """

    how: str
    code: int | None = None
    signal: str | None = None
    oom: bool = False
    exception: str | None = None
    ended_ns: int = 0

    def __post_init__(self) -> None:
        if self.how not in KINDS:
            raise ValueError(f"a process cannot end as {self.how!r:.80}")

    def as_map(self) -> dict[str, Any]:
        """The end as a map of primitives, without what is not known."""
        found: dict[str, Any] = {"how": self.how, "ended_ns": self.ended_ns}
        for name in ("code", "signal", "exception"):
            if (value := getattr(self, name)) is not None:
                found[name] = value
        if self.oom:
            found["oom"] = True
        return found

    @classmethod
    def from_map(cls, values: Any) -> End:
        """Read a map that `as_map` made; keys of a newer version are skipped.

        Raises:
            MessageError: not a map, or a value that cannot be.
        """
        if not isinstance(values, Mapping):
            raise MessageError(f"expected a map about an end, found {type(values).__name__}")
        for name, kind in (("code", int), ("signal", str), ("exception", str), ("oom", bool), ("ended_ns", int)):
            if name in values and type(values[name]) is not kind:
                raise MessageError(f"the {name} of an end cannot be {values[name]!r:.80}")
        if values.get("how") not in KINDS:
            raise MessageError(f"a process cannot end as {values.get('how')!r:.80}")
        exception, signal = values.get("exception"), values.get("signal")
        return cls(
            values["how"],
            values.get("code"),
            None if signal is None else signal[:MAX_TEXT],
            values.get("oom", False),
            None if exception is None else exception[:MAX_TEXT],
            max(0, min(values.get("ended_ns", 0), 2**63 - 1)),
        )

    @property
    def exit(self) -> dict[str, Any] | None:
        """What it ended with, as `tlogs ranks --json` has it; None where that is not known.

        >>> End(KILLED, signal="SIGKILL", oom=True).exit, End(FINISHED, code=0).exit, End(FINISHED).exit
        ({'signal': 'SIGKILL', 'oom': True}, {'code': 0}, None)
        """
        if self.exception is not None:
            return {"exception": self.exception}
        if self.signal is not None:
            return {"signal": self.signal, "oom": True} if self.oom else {"signal": self.signal}
        return None if self.code is None else {"code": self.code}

    @property
    def reason(self) -> str:
        """What ended it, in words; empty where that is not known, or is nothing to speak of.

        >>> End(KILLED, signal="SIGKILL", oom=True).reason, End(FAILED, code=3).reason, End(FINISHED, code=0).reason
        ('SIGKILL (out of memory)', 'exit status 3', '')
        """
        if self.how == KILLED:
            return (self.signal or "a signal") + (" (out of memory)" if self.oom else "")
        if self.how == FAILED:
            return self.exception or ("an exception" if self.code is None else f"exit status {self.code}")
        return ""
