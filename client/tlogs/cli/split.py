"""`tlogs split`."""

from __future__ import annotations

import json
from datetime import timezone
from pathlib import Path
from typing import Any, cast

import click

from tlogs.cli.options import collector_options, filter_options, json_option, one_run, run_argument
from tlogs.reading.cursor import Cursor, filter_for
from tlogs.reading.entry import NO_RANK, Entry
from tlogs.reading.filters import FilterOptions
from tlogs.reading.library import Libraries
from tlogs.reading.run import Run
from tlogs.reading.text import TextRenderer
from tlogs_shared.errors import ConfigError, StoreError

__all__ = ["split"]

MERGED = "merged.log"
NO_RANK_FILE = "no_rank.log"


@click.command()
@run_argument
@filter_options
@click.option("--utc", is_flag=True, help="Print times in UTC.")
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Where to write the files.")
@collector_options
@json_option
def split(
    run: str | None,
    run_option: str | None,
    directory: Path | None,
    utc: bool,
    out: Path,
    collector: str | None,
    secret_file: Path | None,
    as_json: bool,
    **filters: Any,
) -> None:
    """Write one text file per rank of RUN, rank_0000.log and so on, and one with all of them, merged.log.

    Helper processes of a rank go to its file, processes without a rank to no_rank.log. Existing files are never
    overwritten.

    \b
    Examples:
      tlogs split --out logs
      tlogs split latest~1 --out logs --level WARNING
    """
    with Libraries(directory, collector, secret_file) as libraries:
        _, found = libraries.find(one_run(run, run_option))
        files = _Files(out)
        records = _write(found, files, cast(FilterOptions, filters), TextRenderer(timezone.utc if utc else None))
    if as_json:
        click.echo(json.dumps({"run": found.name, "records": records, "files": files.names, "directory": str(out)}))
    else:
        click.echo(f"{records:,} records of {found.name} in {len(files.names)} files in {out}")


def _write(run: Run, files: _Files, filters: FilterOptions, renderer: TextRenderer) -> int:
    """Write the run's records, and count them."""
    cursor = Cursor(run, filter_for(run, filters))
    files.write(MERGED, "")
    records = 0
    for entries in cursor.whole():
        records += len(entries)
        files.write(MERGED, renderer.entries(entries))
        by_file: dict[str, list[Entry]] = {}
        for entry in entries:
            by_file.setdefault(_file_of(entry), []).append(entry)
        for name, of_file in by_file.items():
            files.write(name, renderer.entries(of_file))
    return records


def _file_of(entry: Entry) -> str:
    _, rank, *_ = entry
    return NO_RANK_FILE if rank == NO_RANK else f"rank_{rank:04d}.log"


class _Files:
    """Files written bit by bit and closed in between, as there may be more ranks than a process may have open files.

    Raises:
        ConfigError: there are such files already.
        StoreError: they cannot be written.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._begun: set[str] = set()
        try:
            directory.mkdir(parents=True, exist_ok=True)
            there = [path.name for path in directory.iterdir() if path.name == MERGED or path.name.startswith("rank_")]
        except OSError as error:
            raise StoreError(error.errno, error.strerror, str(directory)) from error
        if there:
            raise ConfigError(f"--out {directory}: {sorted(there)[0]} exists already; give a new directory")

    @property
    def names(self) -> list[str]:
        """The files that were written."""
        return sorted(self._begun)

    def write(self, name: str, text: str) -> None:
        try:
            with (self._directory / name).open("ab") as file:
                file.write(text.encode("utf-8", "backslashreplace"))
        except OSError as error:
            raise StoreError(error.errno, error.strerror, str(self._directory / name)) from error
        self._begun.add(name)
