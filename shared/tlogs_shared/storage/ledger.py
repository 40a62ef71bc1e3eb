"""The numbers removed from a run to save space, so that they count as dropped, not as lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tlogs_shared.errors import MessageError

__all__ = ["Ledger"]


@dataclass(frozen=True, slots=True)
class Ledger:
    """Records that were stored and later removed, by the highest level of their batch.

    Written whole before anything is removed. A segment's share has its own entry until the segment is gone, so doing
    a removal again after a crash counts nothing twice: every segment below `dropped_before` is gone or to be deleted;
    an entry in `thinned` holds where that segment is thinned.

    >>> ledger = Ledger().thin(1, {20: 5}).drop(1, {30: 1})
    >>> ledger.removed(), ledger.dropped_before
    ({20: 5, 30: 1}, 2)
    """

    dropped_before: int = 1
    dropped: Mapping[int, int] = field(default_factory=dict)
    thinned: Mapping[int, Mapping[int, int]] = field(default_factory=dict)

    def thin(self, segment: int, records: Mapping[int, int]) -> Ledger:
        """With *records* taken out of *segment*."""
        return replace(self, thinned={**self.thinned, segment: dict(records)})

    def drop(self, segment: int, records: Mapping[int, int]) -> Ledger:
        """With all of *segment*, the oldest one, removed; *records* is what was still in it."""
        dropped = Counter(self.dropped)
        dropped.update(records)
        rest = dict(self.thinned)
        dropped.update(rest.pop(segment, {}))
        return replace(self, dropped_before=segment + 1, dropped=dict(dropped), thinned=rest)

    def removed(self) -> dict[int, int]:
        """All records that were removed, by level."""
        total = Counter(self.dropped)
        for records in self.thinned.values():
            total.update(records)
        return dict(sorted(total.items()))

    def as_map(self) -> dict[str, Any]:
        """The ledger as JSON can have it: its keys are texts."""
        return {
            "dropped_before": self.dropped_before,
            "dropped": _texts(self.dropped),
            "thinned": {str(segment): _texts(records) for segment, records in self.thinned.items()},
        }

    @classmethod
    def from_map(cls, values: Any) -> Ledger:
        """Read a map that `as_map` made.

        Raises:
            MessageError: *values* is not such a map.
        """
        try:
            return cls(
                dropped_before=int(values["dropped_before"]),
                dropped=_numbers(values["dropped"]),
                thinned={int(segment): _numbers(records) for segment, records in values["thinned"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise MessageError(f"a ledger that cannot be read: {error!r:.80}") from None


def _texts(records: Mapping[int, int]) -> dict[str, int]:
    return {str(level): count for level, count in records.items()}


def _numbers(records: Mapping[str, int]) -> dict[int, int]:
    return {int(level): int(count) for level, count in records.items()}
