"""`tlogs ranks`: who is there, and how they are."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import click

from tlogs.cli.answers import job_at, run_option
from tlogs.cli.options import collector_options, json_option
from tlogs.cli.table import duration, table
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
ORDER: Final = ("gone", "late", "quiet", "live", "done")
"""The odd ones first."""


@click.command(short_help="a row for each rank: where, alive, stored, dropped")
@click.option("--all", "everything", is_flag=True, help="Every rank, also more than a screen holds.")
@run_option
@collector_options
@json_option
def ranks(everything: bool, run: str | None, collector: str | None, secret_file: Path | None, as_json: bool) -> int:
    """Show a row for each rank of the newest attempt, the odd ones first.

    \b
    tlogs ranks
    """
    with job_at(collector, secret_file, run) as job:
        rows, rejected = job.census()
    if as_json:
        click.echo(json.dumps(rows))
        return 0
    if rejected:
        click.echo(
            f"{rejected} message{'s' if rejected != 1 else ''} rejected: without the secret, or against the protocol",
            err=True,
        )
    if not rows:
        click.echo("no rank has come yet")
        return 0
    rows.sort(key=lambda row: (ORDER.index(row["state"]), row["rank"]))
    folded = len(rows) > FOLD_ABOVE and not everything and sys.stdout.isatty()
    shown = rows if not folded else [row for row in rows if row["state"] not in ("live", "done")][:FOLD_ABOVE]
    if shown:
        click.echo(table(HEAD, [_cells(row) for row in shown], right=HEAD_RIGHT), nl=False)
    if folded:
        for state in ORDER:
            group = RankSet.of(row["rank"] for row in rows if row["state"] == state)
            if group:
                click.echo(f"{len(group):5} {state:5} ranks {group}")
        click.echo("every row: tlogs ranks --all")
    for row in rows:
        if row.get("outbox"):
            click.echo(f"rank {row['rank']} left {row['outbox']} on {row['host']}; there: tlogs recover")
    return 0


def _cells(row: dict[str, Any]) -> list[str]:
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
