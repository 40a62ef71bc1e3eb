"""The same record from many ranks, shown once with its rank set.

Two records are the same where level, logger, place and text are. A *group* holds at most one record of each rank, and
appears where its first record was. A record joins a group only if that group comes after every group that its rank is
in already: so each rank's own order is kept, and no rank's lines are folded with each other.

Only ranks are folded: a helper process or a launcher keeps its own lines.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import Final

from tlogs.reading.entry import NO_RANK, Entry
from tlogs_shared.rankset import RankSet
from tlogs_shared.storage.record import message_of

__all__ = ["DEFAULT_WINDOW_NS", "Fold", "Group"]

DEFAULT_WINDOW_NS: Final = 1_000_000_000


class Group:
    """A record, and every rank that logged it within the window; no rank for a record of a process that is not one."""

    __slots__ = ("first", "key", "ordinal", "ranks")

    def __init__(self, first: Entry, ordinal: int, key: tuple[object, ...] | None) -> None:
        _, rank, _, _, _ = first
        self.first = first
        self.ordinal = ordinal
        self.key = key
        self.ranks = [rank] if key is not None else []

    @property
    def label(self) -> str:
        """The prefix of its lines: `rank0-3`, or the name of its one speaker."""
        _, _, _, speaker, _ = self.first
        return speaker.label if len(self.ranks) < 2 else f"rank{RankSet.of(self.ranks)}"

    @property
    def corrected(self) -> int:
        """The corrected time of its first record."""
        corrected, _, _, _, _ = self.first
        return corrected


class Fold:
    """Entries in order in, groups in order out, each as soon as nothing can join it any more.

    `world` is the number of ranks that may log, where that is known: a group that has them all need not wait for
    the window to end.
    """

    def __init__(self, window_ns: int = DEFAULT_WINDOW_NS, world: int | None = None) -> None:
        self.world = world
        self._window = window_ns
        self._waiting: deque[Group] = deque()
        self._same: dict[tuple[object, ...], list[Group]] = {}
        self._floor: dict[int, int] = {}
        self._next = 0

    def add(self, entries: Iterable[Entry]) -> Iterator[Group]:
        """Add *entries*; yield the groups that are complete by then."""
        for entry in entries:
            corrected, _, _, _, _ = entry
            yield from self.until(corrected)
            self._place(entry)

    def until(self, now: int | None) -> Iterator[Group]:
        """Yield the groups that are complete at the corrected time *now*; all of them where it is None, the end."""
        waiting = self._waiting
        while waiting:
            group = waiting[0]
            if (
                now is not None
                and now - group.corrected <= self._window
                and group.key is not None
                and len(group.ranks) != self.world
            ):
                return
            waiting.popleft()
            if group.key is not None:
                same = self._same[group.key]
                same.remove(group)
                if not same:
                    del self._same[group.key]
            yield group

    def _place(self, entry: Entry) -> None:
        _, rank, _, _, _ = entry
        key = _key(entry)
        if key is not None:
            # Groups of one key are in the order of their ordinals.
            same = self._same.setdefault(key, [])
            at = bisect_right(same, self._floor.get(rank, -1), key=_ordinal)
            if at < len(same):
                same[at].ranks.append(rank)
                self._floor[rank] = same[at].ordinal
                return
            self._floor[rank] = self._next
        group = Group(entry, self._next, key)
        self._next += 1
        self._waiting.append(group)
        if key is not None:
            same.append(group)


_ordinal = attrgetter("ordinal")


def _key(entry: Entry) -> tuple[object, ...] | None:
    """Equal for records whose text is the same; None where a record is not folded."""
    _, rank, _, speaker, record = entry
    if rank == NO_RANK or speaker.info.origin.helper is not None:
        return None
    key = (record.levelno, record.logger, message_of(record), record.path, record.line)
    extra = record.extra
    if extra is None:
        return key
    return (*key, *(str(extra.get(name)) for name in ("stream", "artifact", "trace_id", "exc", "stack")))
