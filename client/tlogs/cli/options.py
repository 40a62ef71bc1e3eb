"""Options that commands share, so that they are spelled and explained alike everywhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timezone
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from tlogs.cli import candidates
from tlogs.reading.filters import STREAMS, FilterOptions
from tlogs.reading.json_lines import JsonRenderer
from tlogs.reading.text import TextRenderer
from tlogs_shared.errors import ConfigError
from tlogs_shared.quantity import parse_duration

__all__ = [
    "DURATION",
    "Output",
    "collector_options",
    "directory_option",
    "exit_code_option",
    "filter_options",
    "format_options",
    "hosts_option",
    "json_option",
    "live_run_argument",
    "one_run",
    "ranks_option",
    "run_argument",
    "wants_colour",
]

F = TypeVar("F", bound=Callable[..., Any])

FILTERS: Final = tuple(FilterOptions.__annotations__)
"""The names of the options that `filter_options` adds."""


class _Duration(click.ParamType):  # type: ignore[type-arg] # generic only from click 8.2 on
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if not isinstance(value, str):
            return float(value)
        return parse_duration(value, source=param.opts[-1] if param is not None else "duration")


COLOR: Final = click.Choice(["auto", "always", "never"])
COLOR_HELP: Final = "Colours; auto: on a terminal, unless NO_COLOR is set."

DURATION: Final = _Duration()
"""A length of time, such as 250ms, 5s, 10m, 2h or 7d; in seconds."""


def _all(*options: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def ranks_option(command: F) -> F:
    """Add --ranks."""
    return click.option(
        "-r",
        "--ranks",
        metavar="SET",
        shell_complete=candidates.ranks,
        help="Only these ranks: 0-3,8, 0-63/8, ^5 (not 5).",
    )(command)


def hosts_option(command: F) -> F:
    """Add --hosts."""
    return click.option("--hosts", metavar="GLOB", help="Only ranks on hosts whose name matches.")(command)


def filter_options(command: F) -> F:
    """Add the FILTERS."""
    return _all(
        ranks_option,
        click.option(
            "-l",
            "--level",
            metavar="LEVEL",
            shell_complete=candidates.levels,
            help="Only this level and above.",
        ),
        click.option(
            "--component",
            metavar="NAME",
            shell_complete=candidates.components,
            help="Only this component, such as dynamo or c10d.",
        ),
        click.option(
            "--logger",
            metavar="NAME",
            shell_complete=candidates.loggers,
            help="Only this logger and those below it.",
        ),
        click.option(
            "--artifact",
            metavar="NAME",
            shell_complete=candidates.artifacts,
            help="Only this artifact, such as recompiles.",
        ),
        hosts_option,
        click.option("--stream", type=click.Choice(STREAMS), help="Only what was logged, printed, or noted by tlogs."),
        click.option("-g", "--grep", metavar="REGEX", help="Only if message or exception matches."),
        click.option("-x", "--exclude", metavar="REGEX", help="Only if neither message nor exception matches."),
        click.option("-S", "--since", metavar="TIME", help="From this time on: 12:30:00, ISO, or 5m (ago)."),
        click.option("-U", "--until", metavar="TIME", help="Up to this time."),
        click.option("--attempt", metavar="N|last|all", help="Only this attempt of each rank."),
    )(command)


def format_options(command: F) -> F:
    """Add what decides how records are shown; `Output` takes them."""
    return _all(
        click.option("-o", "--output", type=click.Choice(["text", "json"]), help="Output format.  [text]"),
        click.option("--json", "as_json", is_flag=True, help="Same as -o json."),
        click.option("--fold/--no-fold", default=False, help="Print a record of many ranks once, with its rank set."),
        click.option(
            "--fold-window",
            type=DURATION,
            default="1s",
            metavar="TIME",
            help="Fold records at most this far apart.  [1s]",
        ),
        click.option("--utc", is_flag=True, help="Print times in UTC."),
        click.option("--color", type=COLOR, default="auto", help=COLOR_HELP),
    )(command)


def run_argument(command: F) -> F:
    """Add RUN, also spelled --run, and --dir."""
    return _all(live_run_argument, directory_option)(command)


def live_run_argument(command: F) -> F:
    """Add RUN, also spelled --run, for a command that asks a collector."""
    return _all(
        click.argument("run", required=False, metavar="[RUN]", shell_complete=candidates.runs),
        click.option("--run", "run_option", metavar="RUN", shell_complete=candidates.runs, help="Same as RUN."),
    )(command)


def directory_option(command: F) -> F:
    """Add --dir."""
    return click.option(
        "--dir",
        "directory",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Where runs are stored.  [TLOGS_DIR, else ./tlogs-runs]",
    )(command)


def collector_options(command: F) -> F:
    """Add the options that choose the collector."""
    return _all(
        click.option(
            "--collector",
            metavar="ENDPOINT",
            shell_complete=candidates.collectors,
            help="The collector: host:port, or its directory.  [TLOGS_COLLECTOR, else the only one running here]",
        ),
        click.option(
            "--secret-file",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="The collector's secret.  [TLOGS_SECRET_FILE]",
        ),
    )(command)


def exit_code_option(command: F) -> F:
    """Add --exit-code, which makes a check of a reader."""
    return click.option("--exit-code", is_flag=True, help="Exit with status 1 if anything was printed.")(command)


def json_option(command: F) -> F:
    """Add --json and --color for a command that prints a table otherwise."""
    return _all(
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        click.option("--color", type=COLOR, default="auto", expose_value=False, callback=_set_colour, help=COLOR_HELP),
    )(command)


def _set_colour(ctx: click.Context, param: click.Parameter, value: str) -> None:
    """Tell `click.echo` whether the styles of what it prints reach the terminal."""
    ctx.color = wants_colour(value)


def one_run(run: str | None, run_option: str | None) -> str | None:
    """The run that RUN or --run names, None where neither does.

    Raises:
        ConfigError: they name two.
    """
    if run is not None and run_option is not None and run != run_option:
        raise ConfigError(f"two runs are named, {run!r} and --run {run_option!r}: give one")
    return run or run_option


def wants_colour(color: str) -> bool:
    """Follow --color; for auto, colour a terminal unless NO_COLOR is set."""
    if color != "auto":
        return color == "always"
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


@dataclass(frozen=True)
class Output:
    """Standard output, with the renderer for its records."""

    renderer: TextRenderer | JsonRenderer

    @classmethod
    def of(cls, output: str | None, as_json: bool, utc: bool, color: str) -> Output:
        """The output that the options ask for.

        Raises:
            ConfigError: they contradict each other.
        """
        if as_json and output == "text":
            raise ConfigError("--json and -o text contradict each other: give one")
        if as_json or output == "json":
            return cls(JsonRenderer())
        colour = wants_colour(color)
        # Where colours go a terminal is, perhaps behind a pager: what was logged must not steer it.
        escape = colour or sys.stdout.isatty()
        return cls(TextRenderer(timezone.utc if utc else None, colour=colour, escape=escape))

    def write(self, text: str) -> None:
        """Print *text* now. A lone surrogate (a file name that is not UTF-8) is shown escaped."""
        if text:
            sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace"))
            sys.stdout.buffer.flush()
