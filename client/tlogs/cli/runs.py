"""`tlogs runs`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Final

import click

from tlogs.cli import candidates
from tlogs.cli.options import collector_options, directory_option, json_option
from tlogs.cli.table import duration, show_table, size
from tlogs.reading.library import Libraries
from tlogs.reading.run import Run
from tlogs.reading.runs import RunSummary, summarize

__all__ = ["runs"]

USUAL: Final = {"DROPPED": "0", "LOST": "0", "COMMAND": ""}
NARROW: Final = (("COMMAND", 9),)
SPARE: Final = ("SIZE", "COMMAND")
"""What a terminal that is too narrow goes without."""

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@click.command()
@click.option("--run", metavar="RUN", shell_complete=candidates.runs, help="Only this run.")
@directory_option
@click.option("--verify", is_flag=True, help="Recount from the segments, check every checksum; status 1 on a fault.")
@collector_options
@json_option
def runs(
    run: str | None,
    directory: Path | None,
    verify: bool,
    collector: str | None,
    secret_file: Path | None,
    as_json: bool,
) -> int:
    """List the runs, live ones first, then the newest first.

    Other commands accept a name of this list, or its beginning, as RUN.

    \b
    Examples:
      tlogs runs
      tlogs runs --verify --dir /shared/tlogs-runs
    """
    with Libraries(directory, collector, secret_file) as libraries:
        library = libraries.meant()
        found = [library.open(run)] if run is not None else library.runs()
        if not found and not as_json:
            print(f"tlogs: no runs {library.where}", file=sys.stderr)
            return 0
        return _show(found, verify=verify, as_json=as_json)


def _show(found: Sequence[Run], *, verify: bool, as_json: bool) -> int:
    summaries = [summarize(run) for run in found]
    faults = [_faults(run) if verify else [] for run in found]
    if as_json:
        rows = [
            {**one.asdict(), **({"verified": not notes, "faults": notes} if verify else {})}
            for one, notes in zip(summaries, faults, strict=True)
        ]
        click.echo(json.dumps(rows, indent=2))
    else:
        head = [
            "RUN",
            "START",
            "DURATION",
            "OUTCOME",
            "RANKS",
            "RECORDS",
            "DROPPED",
            "LOST",
            "SIZE",
            "VERIFIED",
            "COMMAND",
        ]
        verified = [("no" if notes else "yes") if verify else "" for notes in faults]
        cells = [_cells(one, sound) for one, sound in zip(summaries, verified, strict=True)]
        if not verify:
            head.remove("VERIFIED")
            cells = [[*row[:-2], row[-1]] for row in cells]
        right = "DURATION RANKS RECORDS DROPPED LOST SIZE"
        show_table(head, cells, right=right, usual=USUAL, narrow=NARROW, spare=SPARE)
        for one, notes in zip(summaries, faults, strict=True):
            for note in notes:
                click.echo(f"{one.name}: {note}")
    return int(any(faults))


def _cells(run: RunSummary, verified: str) -> list[str]:
    start = (_EPOCH + timedelta(microseconds=run.start_ns // 1000)).astimezone()
    return [
        run.name,
        _short(start) if run.start_ns else "",
        duration((run.end_ns - run.start_ns) / 1e9),
        run.outcome,
        str(run.ranks),
        f"{run.records:,}",
        f"{run.dropped:,}",
        f"{run.lost:,}",
        size(run.bytes),
        verified,
        run.command,
    ]


def _short(start: datetime) -> str:
    return f"{start:%m-%d %H:%M}" if start.year == datetime.now().astimezone().year else f"{start:%Y-%m-%d}"


def _faults(run: Run) -> list[str]:
    found = run.verify()
    if found.is_sound:
        return []
    notes = list(found.notes)
    if found.duplicated:
        notes.append(f"{found.duplicated} records are stored twice")
    if found.missing > found.removed:
        notes.append(f"{found.missing - found.removed} records are missing between others")
    return notes
