"""`tlogs runs`."""

from __future__ import annotations

import json
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import click

from tlogs.cli.options import directory_option, json_option
from tlogs.cli.table import duration, size, table
from tlogs.reading.library import LocalLibrary, directory_of_runs
from tlogs.reading.run import Run
from tlogs.reading.runs import RunSummary, summarize

__all__ = ["runs"]

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@click.command()
@directory_option
@click.option("--verify", is_flag=True, help="Count again from the segments, checksums and all; 1 if one is not sound.")
@json_option
def runs(directory: Path | None, verify: bool, as_json: bool) -> int:
    """List what is stored, live runs first, then the newest first.

    A name of the list, or the beginning of one, is what the other commands take as RUN.

    \b
    tlogs runs
    tlogs runs --verify --dir /shared/tlogs-runs
    """
    where = directory or directory_of_runs()
    found = LocalLibrary(where).runs()
    if not found and not as_json:
        print(f"tlogs: no runs in {where}", file=sys.stderr)
        return 0
    summaries = [summarize(run) for run in found]
    faults = [_faults(run) if verify else [] for run in found]
    if as_json:
        rows = [
            {**one.asdict(), **({"verified": not notes, "faults": notes} if verify else {})}
            for one, notes in zip(summaries, faults, strict=True)
        ]
        print(json.dumps(rows, indent=2))
    else:
        head = ["RUN", "START", "DURATION", "RANKS", "RECORDS", "DROPPED", "LOST", "SIZE"]
        cells = [_cells(one) for one in summaries]
        if verify:
            head.append("VERIFIED")
            cells = [[*row, "no" if notes else "yes"] for row, notes in zip(cells, faults, strict=True)]
        print(table(head, cells, right="DURATION RANKS RECORDS DROPPED LOST SIZE"), end="")
        for one, notes in zip(summaries, faults, strict=True):
            for note in notes:
                print(f"{one.name}: {note}")
    return int(any(faults))


def _cells(run: RunSummary) -> list[str]:
    start = (_EPOCH + timedelta(microseconds=run.start_ns // 1000)).astimezone()
    return [
        f"{run.name} (live)" if run.live else run.name,
        f"{start:%Y-%m-%d %H:%M:%S}" if run.start_ns else "",
        duration((run.end_ns - run.start_ns) / 1e9),
        str(run.ranks),
        f"{run.records:,}",
        f"{run.dropped:,}",
        f"{run.lost:,}",
        size(run.bytes),
    ]


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
