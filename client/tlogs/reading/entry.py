"""One record in its place in the merged order, with the stream that logged it.

The merge, the filters and the formats pass records on as plain tuples, `Entry`: a `Record` with all its
attributes (`tlogs.reading.record`) is made only for those who ask for one, which keeps reading several times faster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tlogs.levels.registry import component_of
from tlogs_shared.origin import StreamInfo
from tlogs_shared.storage.record import Fields

__all__ = ["NO_RANK", "Entry", "Speaker", "names_of", "trouble_of"]

NO_RANK: Final = -1
"""The place in the order of a process without a rank: a launcher logs before the ranks that it starts."""


@dataclass(frozen=True, slots=True, eq=False)
class Speaker:
    """One stream as a reader shows it. A stream that learns its rank late gets a new speaker."""

    stream: bytes
    info: StreamInfo
    run: str = ""
    recovered: bool = False
    """The record was recovered from a dead worker's outbox."""

    @property
    def rank(self) -> int:
        """The rank as the order wants it: a number, `NO_RANK` for a process without a rank."""
        rank = self.info.origin.rank
        return NO_RANK if rank is None else rank

    @property
    def label(self) -> str:
        """The name in front of each line."""
        return self.info.origin.label

    def __lt__(self, other: Speaker) -> bool:
        # The last resort of the order: two streams of one rank, the same time and the same number.
        return self.stream < other.stream


Entry = tuple[int, int, int, Speaker, Fields]
"""Corrected time in nanoseconds, rank, number in the stream, speaker, fields: it sorts by itself as readers see it."""


def names_of(logger: str, extra: Mapping[str, Any] | None) -> tuple[str | None, str | None]:
    """Component and artifact of a record: as the rank sent them, else as the registry has them for its logger."""
    component, artifact = component_of(logger)
    if extra is not None:
        component = extra.get("component", component)
        artifact = extra.get("artifact", artifact)
    return component, artifact


def trouble_of(extra: Mapping[str, Any]) -> list[str]:
    """The text after the message: the exception, then the stack."""
    return [str(extra[key]) for key in ("exc", "stack") if extra.get(key)]
