"""`tlogs ranks`: each rank with its state."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

import click

from tlogs.cli.answers import job_at
from tlogs.cli.options import collector_options, json_option, live_run_argument, one_run
from tlogs.cli.table import duration, show_table
from tlogs_shared.protocol.rows import RankRow
from tlogs_shared.rankset import RankSet

__all__ = ["ranks"]

FOLD_ABOVE: Final = 64
"""More rows than a screen holds are folded on a terminal."""

HEAD: Final = [
    "RANK",
    "STATE",
    "HOST",
    "PID",
    "ATTEMPT",
    "STORED",
    "INFLIGHT",
    "DROPPED",
    "LAST RECORD",
    "LAST HEARD",
    "CLOCK",
]
HEAD_RIGHT: Final = "RANK PID ATTEMPT STORED INFLIGHT DROPPED"
USUAL: Final = {"ATTEMPT": "0", "INFLIGHT": "0", "DROPPED": "0", "CLOCK": "same"}
ORDER: Final = ("gone", "late", "quiet", "live", "done")
"""The odd ones first."""


@click.command()
@live_run_argument
@click.option("--all", "everything", is_flag=True, help="Show every rank, however many there are.")
@collector_options
@json_option
def ranks(
    everything: bool,
    run: str | None,
    run_option: str | None,
    collector: str | None,
    secret_file: Path | None,
    as_json: bool,
) -> int:
    """Show a row for each rank of the newest attempt, the odd ones first.

    On a terminal more than 64 ranks are folded by state.

    \b
    Examples:
      tlogs ranks
      tlogs ranks --json | jq '.[] | select(.dropped > 0)'
    """
    with job_at(collector, secret_file, one_run(run, run_option)) as job:
        found = job.census()
    rows, refused = found["rows"], found["refused"]
    if as_json:
        click.echo(json.dumps(rows))
        return 0
    if refused:
        count, ago = refused["count"], duration(refused["last_s"])
        click.echo(f"{count} message{'s' if count > 1 else ''} refused, last {ago} ago: {refused['why']}", err=True)
    if not rows:
        click.echo("no rank has connected yet")
        return 0
    rows.sort(key=lambda row: (ORDER.index(row["state"]), row["rank"]))
    folded = len(rows) > FOLD_ABOVE and not everything and sys.stdout.isatty()
    shown = rows if not folded else [row for row in rows if row["state"] not in ("live", "done")][:FOLD_ABOVE]
    if shown:
        show_table(HEAD, [_cells(row) for row in shown], right=HEAD_RIGHT, usual=USUAL)
    if folded:
        for state in ORDER:
            group = RankSet.of(row["rank"] for row in rows if row["state"] == state)
            if group:
                click.echo(f"{len(group):5} {state:5} ranks {group}")
        click.echo("to see every row: tlogs ranks --all")
    for row in rows:
        if row.get("outbox"):
            click.echo(f"rank {row['rank']} left {row['outbox']}; on {row['host']}, run: tlogs recover")
    return 0


def _cells(row: RankRow) -> list[str]:
    offset = row["clock_offset_ms"]
    return [
        f"{row['rank']}{'*' if row.get('duplicate') else ''}",
        row["state"],
        row["host"],
        str(row["pid"]),
        str(row["attempt"]),
        str(row["stored"]),
        str(row["in_flight"]),
        str(row["dropped"]),
        "-" if row["last_record_s"] is None else f"{duration(row['last_record_s'])} ago",
        f"{duration(row['last_heard_s'])} ago",
        "same" if not offset else f"{offset:+.1f} ms",
    ]
