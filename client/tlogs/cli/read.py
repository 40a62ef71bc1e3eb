"""`tlogs tail` and `tlogs cat`."""

from __future__ import annotations

import gc
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, cast

import click

from tlogs.cli.options import (
    FILTERS,
    Output,
    collector_options,
    exit_code_option,
    filter_options,
    format_options,
    one_run,
    run_argument,
)
from tlogs.reading.cursor import Cursor, filter_for
from tlogs.reading.entry import Entry
from tlogs.reading.filters import FilterOptions
from tlogs.reading.fold import Fold
from tlogs.reading.follow import Follow
from tlogs.reading.follow import follow as follow_runs
from tlogs.reading.library import Libraries, Library
from tlogs.reading.run import Run
from tlogs.reading.subscription import EVERY_RUN
from tlogs_shared.errors import ConfigError
from tlogs_shared.host import is_running
from tlogs_shared.outcome import conclusion, newest

__all__ = ["cat", "tail"]

_ALL: Final = sys.maxsize
_COLLECT_AFTER: Final = 100_000
_NUMBER: Final = re.compile(r"-\d+", re.ASCII)
_PAUSE_S: Final = 0.2
"""How often to look for a new run; a person does not notice this delay."""

_HINT_S: Final = 10.0

_GAVE_UP: Final = 3
"""The exit status of a tail whose collector is gone."""


class Listing:
    """The records that a command prints: folded or not, and counted."""

    def __init__(self, output: Output, fold_window: float | None = None) -> None:
        self._output = output
        self._fold = None if fold_window is None else Fold(round(fold_window * 1e9))
        self.printed = 0

    @classmethod
    def of(
        cls, *, output: str | None, as_json: bool, fold: bool, fold_window: float, utc: bool, color: str, **_: Any
    ) -> Listing:
        """The listing that the format options describe."""
        return cls(Output.of(output, as_json, utc, color), fold_window if fold else None)

    def show(self, entries: list[Entry], until: int | None = None) -> None:
        """Print *entries*; nothing older than the corrected time *until* will follow."""
        self.printed += len(entries)
        if self._fold is None:
            self._output.write(self._output.renderer.entries(entries))
            return
        groups = [*self._fold.add(entries)]
        if until is not None:
            groups += self._fold.until(until)
        self._output.write(self._output.renderer.groups(groups))

    def end(self, notes: Iterable[str] = ()) -> None:
        """Print what still waits to be folded, then the notes on the whole, beside the records."""
        if self._fold is not None:
            self._output.write(self._output.renderer.groups(self._fold.until(None)))
        for note in notes:
            print(f"tlogs: {note}", file=sys.stderr)


@contextmanager
def few_collections() -> Iterator[None]:
    """Let Python look for garbage cycles less often: records form none, and there are many (a quarter quicker)."""
    thresholds = gc.get_threshold()
    gc.set_threshold(_COLLECT_AFTER, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)


def reading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for the run, the filters, the format and the collector."""
    for decorate in (collector_options, format_options, filter_options, run_argument):
        command = decorate(command)
    return command


def _filters(options: Mapping[str, Any]) -> FilterOptions:
    return cast(FilterOptions, {name: options[name] for name in FILTERS})


def _libraries(options: Mapping[str, Any]) -> Libraries:
    return Libraries(options["directory"], options["collector"], options["secret_file"])


def _say(text: str) -> None:
    print(f"tlogs: {text}", file=sys.stderr, flush=True)


class _Pause:
    """Waits for a run to begin, and says so once; after a while also what may keep it from beginning."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._due = [(0.0, self._wait), (_HINT_S, self._hint)]
        self._since = clock()

    def __call__(self, where: str, last: Run | None) -> None:
        if self._due and self._clock() - self._since >= self._due[0][0]:
            _, say = self._due.pop(0)
            say(where, last)
        self._sleep(_PAUSE_S)

    def _wait(self, where: str, last: Run | None) -> None:
        before = "" if last is None else f"; the last one: tlogs tail {last.name}"
        _say(f"waiting for the next run {where}{before}")

    def _hint(self, where: str, last: Run | None) -> None:
        _say(
            "no rank has connected yet: each calls tlogs.init(), and TLOGS_COLLECTOR names this collector where they "
            "run; to see what a worker would use, run there: tlogs check"
        )


class _Attempts:
    """Says between two attempts of a run that the next one begins."""

    def __init__(self) -> None:
        self._newest: int | None = None

    def split(self, entries: list[Entry]) -> Iterator[list[Entry]]:
        """The entries, cut where the first record of a newer attempt is; that is said before the part is taken."""
        begin = 0
        for at, entry in enumerate(entries):
            attempt = entry[3].info.attempt
            if self._newest is None or attempt <= self._newest:
                self._newest = attempt if self._newest is None else self._newest
                continue
            yield entries[begin:at]
            begin, self._newest = at, attempt
            _say(f"attempt {attempt} begins")
        yield entries[begin:]


def _first(lists: Iterable[list[Entry]], count: int | None) -> Iterator[list[Entry]]:
    if count is None:
        yield from lists
        return
    for entries in lists:
        yield entries[:count]
        count -= len(entries)
        if count <= 0:
            return


def _count(ctx: click.Context, param: click.Parameter, value: str) -> int:
    if value == "all":
        return _ALL
    if not value.isdecimal():
        raise ConfigError(f"-n {value!r}: expected a number of records, or all")
    return int(value)


class CountedCommand(click.Command):
    """A command in which `-20` means `-n 20`, as it does for the system's tail and head."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, with `-20` spelled out, unless it is the value of an option."""
        options = [parameter for parameter in self.params if isinstance(parameter, click.Option)]
        with_value = {spelling for option in options if not option.is_flag for spelling in option.opts}
        spelled: list[str] = []
        for arg in args:
            is_value = bool(spelled) and spelled[-1] in with_value
            spelled += ["-n", arg[1:]] if _NUMBER.fullmatch(arg) and not is_value else [arg]
        return super().parse_args(ctx, spelled)


@click.command(cls=CountedCommand)
@reading_options
@click.option("-n", "count", type=click.IntRange(min=1), metavar="N", help="Only the first N records; -20 is -n 20.")
@exit_code_option
def cat(count: int | None, exit_code: bool, run: str | None, run_option: str | None, **options: Any) -> int:
    """Print all records of RUN in order, live or stored.

    RUN is a name or the beginning of one, a path, latest (the default), or latest~1 for the one before.

    \b
    Examples:
      tlogs cat --level WARNING --ranks 0-3
      tlogs cat latest~1 --grep 'loss nan' --json | jq .rank
    """
    listing = Listing.of(**options)
    with few_collections(), _libraries(options) as libraries:
        _, found = libraries.find(one_run(run, run_option))
        cursor = Cursor(found, filter_for(found, _filters(options)))
        for entries in _first(cursor.whole(), count):
            listing.show(entries)
    listing.end(cursor.notes)
    return int(exit_code and listing.printed > 0)


@click.command(cls=CountedCommand)
@reading_options
@click.option(
    "-n", "count", default="10", metavar="N", callback=_count, help="Begin with the last N records, or all.  [10]"
)
@click.option("-f", "--follow/--no-follow", default=True, help="Follow the run while it is live.  [--follow]")
@click.option("--pid", type=int, metavar="PID", help="With --run '*': end when this process ends.")
@exit_code_option
def tail(count: int, follow: bool, exit_code: bool, run: str | None, run_option: str | None, **options: Any) -> int:
    """Print the last records of RUN, then new ones until it is over.

    RUN is a name or the beginning of one, a path, latest, or latest~1 for the one before. Without RUN it is the newest
    live run, else the next one, which tail waits for. --run '*' follows every run of the collector. The exit status is
    3 if the collector went away for good.

    \b
    Examples:
      tlogs tail --component c10d --fold
      tlogs tail -100 --no-follow --ranks 3
    """
    listing = Listing.of(**options)
    name = one_run(run, run_option)
    with few_collections(), _libraries(options) as libraries:
        library: Library
        found: Run | None
        if name == EVERY_RUN:
            library, found = libraries.of_collector(), None
        else:
            library, found = libraries.find_next(_Pause()) if follow and name is None else libraries.find(name)
        if found is not None and not follow:
            listing.show(Cursor(found, filter_for(found, _filters(options))).last(count))
            listing.end()
            return int(exit_code and listing.printed > 0)
        pid = options["pid"]
        shown = follow_runs(
            library,
            found,
            _filters(options),
            count,
            is_over=lambda: pid is not None and not is_running(pid),
            say=_say if found is not None else lambda text: None,
        )
        attempts = _Attempts()
        for entries, until in shown:
            for part in attempts.split(entries) if found is not None else [entries]:
                listing.show(part, until)
        listing.end()
        if found is not None:
            _say(_ending(found, shown))
            if shown.is_abandoned and _running(shown):
                return _GAVE_UP
    return int(exit_code and listing.printed > 0)


def _running(shown: Follow) -> int:
    """How many ranks have not ended, as far as that was told."""
    return sum(info.end is None for info in newest(shown.streams))


def _ending(run: Run, shown: Follow) -> str:
    """One line: how the run ended or, where that is not known yet, what became of its collector."""
    if shown.is_abandoned and (running := _running(shown)):
        gone = "does not answer any more; given up" if shown.gave_up else "has ended"
        were, they = ("ranks were", "they keep their") if running > 1 else ("rank was", "it keeps its")
        return (
            f"run {run.name}: its collector {gone}; {running} {were} still running, and {they} records until a "
            "collector is back"
        )
    return f"run {run.name}: {conclusion(shown.streams, run.created_ns)}"
