"""How a run ended, from how its ranks did: what `tlogs runs`, `tail` and the daemon say of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta, timezone
from typing import Final

from tlogs_shared.end import ENDED, FAILED, FINISHED, KILLED, SILENT
from tlogs_shared.origin import StreamInfo
from tlogs_shared.rankset import RankSet

__all__ = ["LIVE", "STOPPED", "UNKNOWN", "conclusion", "last_attempt", "newest", "outcome", "story"]

LIVE: Final = "live"
STOPPED: Final = "stopped"
UNKNOWN: Final = "unknown"
"""The other outcomes are those of a process: `finished` and `failed`."""

STOPS: Final = ("SIGINT", "SIGTERM")
"""With these a person, or a scheduler, stops a job; a Python program without a handler of its own makes an exception
of the first.
"""

MAX_REASON: Final = 120

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)


def newest(infos: Iterable[StreamInfo]) -> list[StreamInfo]:
    """For each rank the stream of its newest attempt, by rank; of several that have not ended, all.

    A process that only assumes its rank gives way to one that knows it.
    """
    by_rank: dict[int, list[StreamInfo]] = {}
    for info in infos:
        if info.is_rank and info.origin.rank is not None:
            by_rank.setdefault(info.origin.rank, []).append(info)
    found: list[StreamInfo] = []
    for _, mates in sorted(by_rank.items()):
        sure = [info for info in mates if not info.origin.provisional] or mates
        last = max(info.attempt for info in sure)
        found += [info for info in sure if info.end is None] or [info for info in sure if info.attempt == last][-1:]
    return found


def last_attempt(infos: Iterable[StreamInfo]) -> list[StreamInfo]:
    """The ranks whose ends decide: those that torchrun started last, where it did; a smaller world may have fewer."""
    found = newest(infos)
    last = max((info.origin.restart_count or 0 for info in found), default=0)
    return [info for info in found if (info.origin.restart_count or 0) == last]


def outcome(infos: Iterable[StreamInfo], *, live: bool) -> str:
    """`live finished failed stopped unknown`; *live* says whether streams without an end are alive."""
    ranks = last_attempt(infos)
    if live and any(info.end is None for info in ranks):
        return LIVE
    bad = _deaths(ranks)
    if bad:
        return STOPPED if _is_stop(bad[0]) else FAILED
    return FINISHED if ranks and all(_how(info) == FINISHED for info in ranks) else UNKNOWN


def story(infos: Iterable[StreamInfo]) -> str:
    """What ended the run, in words: the first death with its time, then the others; empty where all have finished.

    `rank 1 ValueError: loss is nan, 12:33:02; then 0, 2-3 (SIGTERM, after it)`
    """
    ranks = last_attempt(infos)
    bad = _deaths(ranks)
    parts = []
    if bad:
        first = bad[0]
        at = (_EPOCH + timedelta(microseconds=first.since_ns // 1000)).astimezone() if first.since_ns else None
        parts.append(f"rank {first.origin.rank} {_reason(first)}" + (f", {at:%H:%M:%S}" if at is not None else ""))
        groups: dict[str, list[int]] = {}
        for info in bad[1:]:
            groups.setdefault(_reason(info), []).append(info.origin.rank or 0)
        if groups:
            parts.append("then " + ", ".join(f"{_listed(group)} ({why}, after it)" for why, group in groups.items()))
    for how, text in ((ENDED, "ended, and how is not known"), (SILENT, "silent")):
        if group := [info.origin.rank or 0 for info in ranks if _how(info) == how]:
            parts.append(f"rank{'s' if len(group) > 1 else ''} {_listed(group)} {text}")
    return "; ".join(parts)


def conclusion(infos: Collection[StreamInfo], began_ns: int) -> str:
    """How the run ended, after how long, and what ended it.

    `FAILED after 12 min: rank 1 ValueError: loss is nan, 12:33:02; then 0, 2-3 (SIGTERM, after it)`
    """
    ended_ns = max((info.since_ns for info in infos if info.end is not None), default=0)
    what = outcome(infos, live=False).upper()
    after = f" after {_span((ended_ns - began_ns) / 1e9)}" if ended_ns >= began_ns > 0 else ""
    why = story(infos)
    return f"{what}{after}: {why}" if why else f"{what}{after}"


def _span(seconds: float) -> str:
    """A length of time as a sentence has it.

    >>> _span(3.2), _span(754), _span(7500)
    ('3 s', '12 min', '2 h 5 min')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(int(seconds) // 60, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _how(info: StreamInfo) -> str:
    return SILENT if info.end is None else info.end.how


def _deaths(ranks: Iterable[StreamInfo]) -> list[StreamInfo]:
    """Those that failed or were killed, the first one first."""
    return sorted((info for info in ranks if _how(info) in (FAILED, KILLED)), key=lambda info: info.since_ns)


def _is_stop(info: StreamInfo) -> bool:
    end = info.end
    assert end is not None, "it has ended"
    return end.signal in STOPS or (end.exception or "").split(":")[0] == "KeyboardInterrupt"


def _reason(info: StreamInfo) -> str:
    """One line: exceptions have several, and may be long."""
    assert info.end is not None, "it has ended"
    first, *more = info.end.reason.split("\n")
    return f"{first[:MAX_REASON]}…" if more or len(first) > MAX_REASON else first


def _listed(ranks: Sequence[int]) -> str:
    return str(RankSet.of(ranks)).replace(",", ", ")
