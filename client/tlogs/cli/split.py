"""`tlogs split`."""

from __future__ import annotations

from datetime import timezone
from pathlib import Path
from typing import Any, cast

import click

from tlogs.cli.options import filter_options, one_run, run_argument
from tlogs.reading.cursor import Cursor, filter_for
from tlogs.reading.entry import NO_RANK, Entry
from tlogs.reading.filters import FilterOptions
from tlogs.reading.library import LocalLibrary, directory_of_runs
from tlogs.reading.text import TextRenderer
from tlogs_shared.errors import ConfigError, StoreError

__all__ = ["split"]

MERGED = "merged.log"
NO_RANK_FILE = "no_rank.log"


@click.command()
@run_argument
@filter_options
@click.option("--utc", is_flag=True, help="Times in UTC, not in the local zone.")
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Where the files go.")
def split(
    run: str | None, run_option: str | None, directory: Path | None, utc: bool, out: Path, **filters: Any
) -> None:
    """Write one text file for each rank of RUN, rank_0000.log, and all in one, merged.log.

    Helper processes of a rank are in its file; a process without a rank is in no_rank.log.

    \b
    tlogs split --out logs
    tlogs split latest~1 --out logs --level WARNING
    """
    found = LocalLibrary(directory or directory_of_runs()).open(one_run(run, run_option) or "latest")
    cursor = Cursor(found, filter_for(found, cast(FilterOptions, filters)))
    renderer = TextRenderer(timezone.utc if utc else None)
    files = _Files(out)
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
    print(f"{records:,} records of {found.name} in {len(files)} files in {out}")


def _file_of(entry: Entry) -> str:
    _, rank, *_ = entry
    return NO_RANK_FILE if rank == NO_RANK else f"rank_{rank:04d}.log"


class _Files:
    """Files that are written bit by bit; none is kept open, as there may be more ranks than a process may have files.

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
            raise ConfigError(f"--out {directory}: {sorted(there)[0]} is there already; give a new directory")

    def __len__(self) -> int:
        return len(self._begun)

    def write(self, name: str, text: str) -> None:
        try:
            with (self._directory / name).open("ab") as file:
                file.write(text.encode("utf-8", "backslashreplace"))
        except OSError as error:
            raise StoreError(error.errno, error.strerror, str(self._directory / name)) from error
        self._begun.add(name)
