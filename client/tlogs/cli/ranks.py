"""`tlogs ranks`: each rank with its state."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import click

from tlogs.cli.answers import job_at, stored_instead
from tlogs.cli.options import collector_options, directory_option, json_option, live_run_argument, one_run
from tlogs.cli.table import duration, show_table
from tlogs.reading.ranks import RankRow, stored_rows
from tlogs_shared.end import ENDED, FAILED, FINISHED, KILLED, RUNNING, SILENT, STARTING, End
from tlogs_shared.errors import CollectorUnavailable, ConfigError, RequestRefused
from tlogs_shared.protocol.rows import Refusals
from tlogs_shared.rankset import RankSet

__all__ = ["ranks"]

FOLD_ABOVE: Final = 64
"""More rows than a screen holds are folded on a terminal."""

QUIET_S: Final = 60.0
"""A rank that runs and has logged nothing for so long is marked."""

HEAD: Final = [
    "RANK",
    "STATE",
    "SINCE",
    "EXIT",
    "HOST",
    "PID",
    "ATTEMPT",
    "STORED",
    "INFLIGHT",
    "DROPPED",
    "CLOCK",
    "LAST SAID",
]
HEAD_RIGHT: Final = "RANK PID ATTEMPT STORED INFLIGHT DROPPED"
USUAL: Final = {"EXIT": "", "ATTEMPT": "0", "INFLIGHT": "0", "DROPPED": "0", "CLOCK": "same", "LAST SAID": ""}
NARROW: Final = (("LAST SAID", 20), ("HOST", 12), ("EXIT", 16), ("LAST SAID", 9), ("EXIT", 9))
"""What is cut where a line is too long, in this order and to no less than that."""

SPARE: Final = ("CLOCK", "INFLIGHT", "STORED")
"""What is left out where that is not enough."""

ORDER: Final = {FAILED: 0, KILLED: 0, SILENT: 1, ENDED: 2}
"""The odd ones first, the others by rank after them."""

STATES: Final = (FAILED, KILLED, SILENT, ENDED, STARTING, RUNNING, FINISHED)


@click.command()
@live_run_argument
@directory_option
@click.option("--all", "everything", is_flag=True, help="Show every rank, however many there are.")
@click.option("--attempt", type=click.Choice(["last", "all"]), default="last", help="Which attempts of each.  [last]")
@collector_options
@json_option
def ranks(
    everything: bool,
    attempt: str,
    run: str | None,
    run_option: str | None,
    directory: Path | None,
    collector: str | None,
    secret_file: Path | None,
    as_json: bool,
) -> int:
    """Show each rank of RUN, live or stored: its state, how it ended, what it said last.

    Failed and killed ranks come first, the first death first. On a terminal more than 64 ranks are folded by state.

    \b
    Examples:
      tlogs ranks
      tlogs ranks latest~1 --attempt all
      tlogs ranks --json | jq '.[] | select(.dropped > 0)'
    """
    every_attempt = attempt == "all"
    rows, refused = _find(directory, collector, secret_file, one_run(run, run_option), every_attempt=every_attempt)
    rows.sort(key=_place)
    if as_json:
        click.echo(json.dumps(rows))
        return 0
    if refused:
        count, ago = refused["count"], duration(refused["last_s"])
        click.echo(f"{count} message{'s' if count > 1 else ''} refused, last {ago} ago: {refused['why']}", err=True)
    if not rows:
        click.echo("no rank has connected yet")
        return 0
    _show(rows, everything=everything)
    return 0


def _find(
    directory: Path | None, collector: str | None, secret_file: Path | None, run: str | None, *, every_attempt: bool
) -> tuple[list[RankRow], Refusals | None]:
    """The rows from the collector that has the run, else from where it is stored."""
    where = collector if directory is None or collector is not None else str(directory)
    try:
        with job_at(where, secret_file, run) as job:
            found = job.census(every_attempt=every_attempt)
            return job.said(found), found["refused"]
    except (CollectorUnavailable, ConfigError, RequestRefused) as error:
        stored = stored_instead(error, directory, collector, run)
    return stored_rows(stored, time.time_ns(), every_attempt=every_attempt), None


def _show(rows: Sequence[RankRow], *, everything: bool) -> None:
    folded = len(rows) > FOLD_ABOVE and not everything and sys.stdout.isatty()
    shown = [row for row in rows if _is_odd(row)][:FOLD_ABOVE] if folded else rows
    if shown:
        show_table(HEAD, [_cells(row) for row in shown], right=HEAD_RIGHT, usual=USUAL, narrow=NARROW, spare=SPARE)
    if folded:
        for state in STATES:
            group = RankSet.of(row["rank"] for row in rows if row["state"] == state)
            if group:
                click.echo(f"{len(group):5} {state:8} ranks {group}")
        click.echo("to see every row: tlogs ranks --all")
    for row in rows:
        if row.get("outbox"):
            click.echo(f"rank {row['rank']} left {row['outbox']}; on {row['host']}, run: tlogs recover")


def _place(row: RankRow) -> tuple[int, str, int, int]:
    order = ORDER.get(row["state"], len(ORDER))
    return order, (row["since"] or "") if order == 0 else "", row["rank"], row["attempt"]


def _is_odd(row: RankRow) -> bool:
    return row["state"] not in (RUNNING, FINISHED) or bool(_mark(row))


def _mark(row: RankRow) -> str:
    """What is unusual about a rank that has not ended."""
    if row["state"] not in (STARTING, RUNNING):
        return ""
    if row.get("late"):
        return f"host late {duration(row['last_heard_s'])}"
    quiet_s = row["last_record_s"]
    return f"quiet {duration(quiet_s)}" if quiet_s is not None and quiet_s > QUIET_S else ""


def _cells(row: RankRow) -> list[str]:
    offset = row["clock_offset_ms"]
    return [
        f"{row['rank']}{'*' if row.get('duplicate') else ''}",
        row["state"],
        _since(row["since"]),
        _exit(row),
        row["host"],
        str(row["pid"]),
        str(row["attempt"]),
        str(row["stored"]),
        str(row["in_flight"]),
        str(row["dropped"]),
        "same" if not offset else f"{offset:+.1f} ms",
        _last_said(row),
    ]


def _since(since: str | None) -> str:
    if since is None:
        return "-"
    at = datetime.fromisoformat(f"{since[:19]}+00:00").astimezone()
    return f"{at:%H:%M:%S}" if at.date() == datetime.now().astimezone().date() else f"{at:%m-%d %H:%M}"


def _exit(row: RankRow) -> str:
    exit = row["exit"]
    if exit is None:
        return ""
    known: dict[str, Any] = {name: exit[name] for name in ("code", "signal", "oom", "exception") if name in exit}
    return End(row["state"], **known).reason.split("\n")[0]


def _last_said(row: RankRow) -> str:
    said = (row["last_said"] or "").split("\n")[0]
    mark, age = _mark(row), row["last_record_s"]
    if not mark and age is not None and row["state"] == RUNNING:
        mark = f"{duration(age)} ago"
    return ": ".join(part for part in (mark, said) if part)
