"""`tlogs tail` and `tlogs cat`."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

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
from tlogs.cli.place import EVERY_RUN, Place
from tlogs.reading.entry import Entry
from tlogs.reading.fold import Fold
from tlogs.reading.reader import Following, Reading, end_of, make_filter
from tlogs.reading.source import Source
from tlogs_shared.errors import ConfigError
from tlogs_shared.host import is_running
from tlogs_shared.storage.position import START, Position

__all__ = ["cat", "tail"]

_ALL: Final = sys.maxsize
_COLLECT_AFTER: Final = 100_000


class Printer:
    """What prints entries, folded or not, and counts them."""

    def __init__(self, output: Output, fold_window: float | None = None) -> None:
        self._output = output
        self._fold = None if fold_window is None else Fold(round(fold_window * 1e9))
        self.printed = 0

    @classmethod
    def of(
        cls, *, output: str | None, as_json: bool, fold: bool, fold_window: float, utc: bool, color: str, **_: Any
    ) -> Printer:
        """What the format options ask for."""
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
        """Print what still waits to be folded; then what is to be said of the whole, beside the records."""
        if self._fold is not None:
            self._output.write(self._output.renderer.groups(self._fold.until(None)))
        for note in notes:
            print(f"tlogs: {note}", file=sys.stderr)


@contextmanager
def few_collections() -> Iterator[None]:
    """Let Python look for garbage in cycles more seldom: records are none, and there are many (a quarter quicker)."""
    thresholds = gc.get_threshold()
    gc.set_threshold(_COLLECT_AFTER, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)


def reading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add all options that say what is read, and how it is shown."""
    for decorate in (collector_options, format_options, filter_options, run_argument):
        command = decorate(command)
    return command


def _reading(source: Source, options: Mapping[str, Any], begin: Position = START) -> Reading:
    wanted = {name: options[name] for name in FILTERS if options[name] is not None}
    return Reading(source, make_filter(end_ns=lambda: end_of(source), **wanted), begin)


def _place(options: Mapping[str, Any]) -> Place:
    return Place(options["directory"], options["collector"], options["secret_file"])


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


@click.command()
@reading_options
@click.option("-n", "count", type=click.IntRange(min=1), metavar="N", help="Only the first N records.")
@exit_code_option
def cat(count: int | None, exit_code: bool, run: str | None, run_option: str | None, **options: Any) -> int:
    """Print all records of RUN in their order, live or stored.

    RUN is a name, the beginning of one, a path, latest (the default) or latest~1.

    \b
    tlogs cat --level WARNING --ranks 0-3
    tlogs cat latest~1 --grep 'loss nan' --json | jq .rank
    """
    printer = Printer.of(**options)
    with few_collections(), _place(options) as place:
        reading = _reading(place.find(one_run(run, run_option)), options)
        for entries in _first(reading.whole(), count):
            printer.show(entries)
    printer.end(reading.notes)
    return int(exit_code and printer.printed > 0)


@click.command()
@reading_options
@click.option("-n", "count", default="10", metavar="N", callback=_count, help="The last N records first, or all.  [10]")
@click.option("--follow/--no-follow", default=True, help="Go on with what comes while the run is live.")
@click.option("--pid", type=int, metavar="PID", help="With --run '*': end when this process does.")
@exit_code_option
def tail(count: int, follow: bool, exit_code: bool, run: str | None, run_option: str | None, **options: Any) -> int:
    """Print the last records of RUN, then what comes while it is live.

    RUN is a name, the beginning of one, a path, latest (the default) or latest~1; --run '*' are all runs of the
    collector, also those that are still to begin.

    \b
    tlogs tail --component c10d --fold
    tlogs tail -n 100 --no-follow --ranks 3
    """
    printer = Printer.of(**options)
    name = one_run(run, run_option)
    with few_collections(), _place(options) as place:
        if name == EVERY_RUN:
            _follow_every(place, options, count, printer)
        elif follow:
            _follow(place, place.find(name, wait=True), options, count, printer)
        else:
            printer.show(_reading(place.find(name), options).last(count))
    printer.end()
    return int(exit_code and printer.printed > 0)


def _follow(place: Place, source: Source, options: Mapping[str, Any], count: int, printer: Printer) -> None:
    watch, hold_s = place.watch(source)
    following = Following(_reading(source, options), hold_s)
    printer.show(following.begin(count, watch(0.0)))
    while not following.ended:
        for entries, until in following.step(watch(following.wait_s)):
            printer.show(entries, until)


def _follow_every(place: Place, options: Mapping[str, Any], count: int, printer: Printer) -> None:
    """Follow the runs of a collector until it ends: each is in order, and they take turns.

    Each begins where this collector began to write it.
    """
    watch, open_run = place.every_run()
    pid = options["pid"]
    runs: dict[str, Following] = {}
    closing = False
    while not closing:
        news = watch(min((following.wait_s for following in runs.values()), default=1.0))
        closing = pid is not None and not is_running(pid)
        if news is not None:
            closing |= news.closing
            if news.run and news.run not in runs:
                begin = Position(news.begin_segment, news.begin_offset)
                runs[news.run] = Following(_reading(open_run(news.run), options, begin))
                printer.show(runs[news.run].begin(count, news))
        for name, following in runs.items():
            for entries, until in following.step(news if news is not None and name == news.run else None):
                printer.show(entries, until)
    for following in runs.values():
        for entries, until in following.close():
            printer.show(entries, until)
