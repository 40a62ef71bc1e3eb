"""`tlogs.read` and `tlogs.runs`: stored runs, without a daemon."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tlogs.reading.cursor import Cursor, filter_for
from tlogs.reading.filters import FilterOptions
from tlogs.reading.library import LocalLibrary, directory_of_runs
from tlogs.reading.record import Record, record_of
from tlogs.reading.runs import RunSummary, summarize

if TYPE_CHECKING:
    from typing_extensions import Unpack  # in typing from 3.11 on

__all__ = ["read", "runs"]


def read(
    run: str = "latest", *, dir: str | os.PathLike[str] | None = None, **filters: Unpack[FilterOptions]
) -> Iterator[Record]:
    """The records of a stored run in their order, without a daemon; a live run is read as it is now.

    *run* is a name, the beginning of one, a path, `latest` or `latest~1`; *dir* where runs are (TLOGS_DIR, else
    `./tlogs-runs`). The filters are those of `tlogs cat`: `ranks="0-3"`, `level="WARNING"`, `component`, `logger`,
    `artifact`, `hosts`, `stream`, `grep`, `exclude`, `since`, `until`, `attempt`.

    Raises:
        ConfigError: no such run, or a filter whose value cannot be used.
        StoreError: the run cannot be read.
    """
    found = _library(dir).open(run)
    # Wrong arguments are reported by the call, not by the first record.
    choice = filter_for(found, filters)
    return (record_of(entry) for entries in Cursor(found, choice).whole() for entry in entries)


def runs(dir: str | os.PathLike[str] | None = None) -> list[RunSummary]:
    """The stored runs in *dir*, live ones first, then the newest first.

    Raises:
        StoreError: the directory or a run in it cannot be read.
    """
    return [summarize(run) for run in _library(dir).runs()]


def _library(directory: str | os.PathLike[str] | None) -> LocalLibrary:
    return LocalLibrary(directory_of_runs() if directory is None else Path(directory))
