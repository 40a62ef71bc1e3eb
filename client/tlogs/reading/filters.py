"""Which records a reader wants: the FILTERS that `tail`, `cat` and the others share.

Much can be decided before anything is unpacked. A stream is wanted or not by its rank, host and attempt; a batch by
the highest level and the times in its header. Only what is left is asked of each record.

A new filter is a key of `FilterOptions`, an attribute of `Filter` that `make_filter` fills in, and a test in
`Filter._tests`; for the commands, an option in `tlogs.cli.options`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Final, TypedDict

from tlogs.levels.registry import recorded
from tlogs.reading.entry import names_of, trouble_of
from tlogs_shared.errors import ConfigError
from tlogs_shared.level_names import parse_level
from tlogs_shared.origin import StreamInfo
from tlogs_shared.quantity import parse_duration
from tlogs_shared.rankset import RankSet
from tlogs_shared.storage.batch import Header
from tlogs_shared.storage.record import Fields, message_of

__all__ = [
    "Filter",
    "FilterOptions",
    "StreamFilter",
    "make_filter",
    "parse_moment",
    "parse_pattern",
]

STREAMS: Final = ("log", "stdout", "stderr", "tlogs")
"""Where a record comes from: a logging call, what the process printed, or tlogs itself."""

_HIGHEST_IN_HEADER: Final = 0xFFFF

Test = Callable[[Fields], bool]


class FilterOptions(TypedDict, total=False):
    """The filters by name, as texts that the commands take or as values; None is the same as absent.

    Integers as times are nanoseconds since the epoch; a datetime without a zone is in the reader's own.
    """

    ranks: str | int | RankSet | None
    level: str | int | None
    component: str | None
    logger: str | None
    artifact: str | None
    hosts: str | None
    stream: str | None
    grep: str | None
    exclude: str | None
    since: str | int | datetime | None
    until: str | int | datetime | None
    attempt: str | int | None


@dataclass(frozen=True, slots=True)
class Filter:
    """Which records are wanted; None means all. Times are corrected; `since_ns` is inclusive, `until_ns` exclusive."""

    ranks: RankSet | None = None
    level: int | None = None
    component: str | None = None
    logger: str | None = None
    artifact: str | None = None
    hosts: str | None = None
    stream: str | None = None
    grep: re.Pattern[str] | None = None
    exclude: re.Pattern[str] | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    attempt: int | str = "all"
    """A number, `all`, or `last`: for each rank the newest one that was seen."""

    def streams(self, streams: Mapping[bytes, StreamInfo]) -> dict[bytes, StreamFilter]:
        """The streams that are wanted, each with the conditions on its batches and records."""
        newest: dict[object, int] = {}
        for info in streams.values():
            who = _who(info)
            newest[who] = max(newest.get(who, 0), info.attempt)
        return {
            stream: self._of_stream(info)
            for stream, info in streams.items()
            if (self.ranks is None or info.origin.rank in self.ranks)
            and (self.hosts is None or fnmatchcase(info.origin.host, self.hosts))
            and (
                self.attempt == "all"
                or info.attempt == (newest[_who(info)] if self.attempt == "last" else self.attempt)
            )
        }

    def _of_stream(self, info: StreamInfo) -> StreamFilter:
        offset = info.offset_ns or 0
        since = None if self.since_ns is None else self.since_ns - offset
        until = None if self.until_ns is None else self.until_ns - offset
        return StreamFilter(self.level, since, until, _all_of(self._tests(since, until)))

    def _tests(self, since: int | None, until: int | None) -> list[Test]:
        """The conditions on each record, the cheap ones first."""
        tests: list[Test] = []
        if (level := self.level) is not None:
            tests.append(lambda record: record.levelno >= level)
        if since is not None:
            tests.append(lambda record: record.ts >= since)
        if until is not None:
            tests.append(lambda record: record.ts < until)
        if (stream := self.stream) is not None:
            tests.append(lambda record: ((record.extra or {}).get("stream") or "log") == stream)
        if (logger := self.logger) is not None:
            below = logger + "."
            tests.append(lambda record: record.logger == logger or record.logger.startswith(below))
        if (component := self.component) is not None:
            tests.append(_of_component(component))
        if (artifact := self.artifact) is not None:
            tests.append(lambda record: names_of(record.logger, record.extra)[1] == artifact)
        if self.grep is not None:
            search = self.grep.search
            tests.append(lambda record: search(_searched(record)) is not None)
        if self.exclude is not None:
            search_not = self.exclude.search
            tests.append(lambda record: search_not(_searched(record)) is None)
        return tests


@dataclass(frozen=True, slots=True)
class StreamFilter:
    """The conditions on one stream's batches and records; the times are the stream's own."""

    level: int | None = None
    since: int | None = None
    until: int | None = None
    record: Test | None = None
    """None where every record of a wanted batch may be wanted."""

    def header(self, header: Header) -> bool:
        """Return True if the batch can hold a wanted record."""
        return self.span(header.level, header.first_ts, header.last_ts)

    def span(self, level: int, first_ts: int, last_ts: int) -> bool:
        """Return True if a batch with this highest level, first and last time can."""
        return (
            (self.level is None or level >= min(self.level, _HIGHEST_IN_HEADER))
            and (self.since is None or last_ts >= self.since)
            and (self.until is None or first_ts < self.until)
        )


def _who(info: StreamInfo) -> object:
    # Launchers have no rank; the one of each host counts its own attempts.
    origin = info.origin
    return origin.host if origin.rank is None else origin.rank


def _all_of(tests: list[Test]) -> Test | None:
    if not tests:
        return None
    if len(tests) == 1:
        return tests[0]
    if len(tests) == 2:
        first, second = tests
        return lambda record: first(record) and second(record)
    return lambda record: all(test(record) for test in tests)


def _of_component(name: str) -> Test:
    """Below a logger of the component (`distributed` has `c10d` in it), or labelled with it by the rank."""
    loggers = recorded().loggers_of(name) or ()
    below = tuple(f"{logger}." for logger in loggers)

    def test(record: Fields) -> bool:
        logger = record.logger
        return logger in loggers or logger.startswith(below) or names_of(logger, record.extra)[0] == name

    return test


def _searched(record: Fields) -> str:
    """The text that a pattern is matched against: the message, and below it the exception and the stack."""
    message = message_of(record)
    return message if record.extra is None else "\n".join([message, *trouble_of(record.extra)])


def make_filter(options: FilterOptions, now_ns: int, end_ns: Callable[[], int]) -> Filter:
    """Check *options* and read the texts in them.

    *now_ns* is what `5m` ago is counted from; *end_ns* returns when the run ended, which a time of day is near to.

    Raises:
        TypeError: an unknown filter name, as for any unknown keyword.
        ConfigError: a value cannot be used.
    """
    for name, value in options.items():
        if name not in FilterOptions.__annotations__:
            close = get_close_matches(name, FilterOptions.__annotations__, 1)
            meant = f" (did you mean {close[0]!r}?)" if close else ""
            raise TypeError(f"unknown filter {name!r}{meant}; there are {', '.join(FilterOptions.__annotations__)}")
        kinds = _KINDS.get(name, (str,))
        if value is not None and (isinstance(value, bool) or not isinstance(value, kinds)):
            raise ConfigError(f"{name} {value!r}: expected {' or '.join(kind.__name__ for kind in kinds)}")
    level, grep, exclude = options.get("level"), options.get("grep"), options.get("exclude")
    stream = options.get("stream")
    if stream is not None and stream not in STREAMS:
        raise ConfigError(f"stream {stream!r}: expected one of {', '.join(STREAMS)}")
    return Filter(
        ranks=_ranks(options.get("ranks")),
        level=None if level is None else parse_level(level),
        component=options.get("component"),
        logger=options.get("logger"),
        artifact=options.get("artifact"),
        hosts=options.get("hosts"),
        stream=stream,
        grep=None if grep is None else parse_pattern(grep),
        exclude=None if exclude is None else parse_pattern(exclude),
        since_ns=_moment(options.get("since"), now_ns, end_ns),
        until_ns=_moment(options.get("until"), now_ns, end_ns),
        attempt=_attempt(options.get("attempt")),
    )


_KINDS: Final[Mapping[str, tuple[type, ...]]] = {
    "ranks": (str, int, RankSet),
    "level": (str, int),
    "since": (str, int, datetime),
    "until": (str, int, datetime),
    "attempt": (str, int),
}
"""The types that a filter's value may have; text where no other is given."""


def _ranks(value: str | int | RankSet | None) -> RankSet | None:
    return RankSet.parse(str(value)) if isinstance(value, str | int) else value


def _attempt(value: str | int | None) -> int | str:
    if value is None or value in ("all", "last"):
        return value or "all"
    if not str(value).isdecimal():
        raise ConfigError(f"attempt {value!r}: expected a number from 0 on, last or all")
    return int(value)


def _moment(value: str | int | datetime | None, now_ns: int, end_ns: Callable[[], int]) -> int | None:
    if isinstance(value, str):
        return parse_moment(value, now_ns, end_ns())
    return _nanoseconds(value) if isinstance(value, datetime) else value


def parse_pattern(text: str) -> re.Pattern[str]:
    """A regular expression, as `--grep` takes it.

    Raises:
        ConfigError: *text* is not one.
    """
    try:
        return re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(
            f"pattern {text!r}: {error}; expected a regular expression, as Python's re has them"
        ) from None


_TIME_OF_DAY: Final = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,9}))?)?", re.ASCII)
_FRACTION: Final = re.compile(r"(?<=:\d\d)[.,](\d{1,9})", re.ASCII)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)


def parse_moment(text: str, now_ns: int, end_ns: int, zone: tzinfo | None = None) -> int:
    """A moment in nanoseconds since the epoch: `5m` before *now_ns*, ISO, or a time of day.

    A time of day is one between 18 hours before and 6 hours after *end_ns*, the run's last record: what a person
    means who has the run's output before her eyes, also where it passed midnight. Times without a zone are in *zone*,
    the reader's own by default.

    >>> parse_moment("00:00:01.5", 0, 0, timezone.utc), parse_moment("1970-01-01T00:00:01Z", 0, 0)
    (1500000000, 1000000000)

    Raises:
        ConfigError: *text* is not a point in time.
    """
    text = text.strip()
    try:
        if text[-1:] in ("s", "m", "h", "d"):
            return now_ns - round(parse_duration(text) * 1e9)
        if match := _TIME_OF_DAY.fullmatch(text):
            end = _EPOCH + timedelta(microseconds=end_ns // 1000)
            end = end.astimezone(zone)
            moment = end.replace(
                tzinfo=zone, hour=int(match[1]), minute=int(match[2]), second=int(match[3] or 0), microsecond=0, fold=0
            )
            near = moment + timedelta(days=1)
            while near.astimezone(timezone.utc) > end + timedelta(hours=6):
                near -= timedelta(days=1)
            return _nanoseconds(near) + int((match[4] or "").ljust(9, "0"))
        # Python 3.10 reads neither a Z nor an odd number of digits behind the point.
        fraction = _FRACTION.search(text)
        moment = datetime.fromisoformat(_FRACTION.sub("", text).replace("Z", "+00:00"))
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=zone)
        return _nanoseconds(moment) + (int(fraction[1].ljust(9, "0")) if fraction else 0)
    except (ValueError, OverflowError):
        raise ConfigError(
            f"time {text!r}: expected 12:30:00, 2026-01-31T12:30:00+01:00, or 5m for 5 minutes ago"
        ) from None


def _nanoseconds(moment: datetime) -> int:
    return (moment.astimezone(timezone.utc) - _EPOCH) // timedelta(microseconds=1) * 1000
