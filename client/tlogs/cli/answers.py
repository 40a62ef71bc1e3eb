"""Shared by the commands that talk to a running job: the connection, and the ranks' answers in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import click

from tlogs.cli import candidates
from tlogs.operator.job import Job, Result, connect
from tlogs.reading.library import LocalLibrary, directory_of_runs
from tlogs.reading.local_run import LocalRun
from tlogs_shared.errors import CollectorUnavailable, ConfigError, TlogsError
from tlogs_shared.rankset import RankSet

__all__ = ["answers", "grouped", "in_words", "job_at", "run_option", "stored_instead"]

Said = TypeVar("Said", str, tuple[str, str])

run_option = click.option(
    "--run", metavar="RUN", shell_complete=candidates.runs, help="Which run.  [the newest live one]"
)


def job_at(collector: str | None, secret_file: Path | None, run: str | None) -> Job:
    """The collector that the options mean."""
    return connect(collector, run=run, secret_file=None if secret_file is None else str(secret_file))


def stored_instead(error: TlogsError, directory: Path | None, collector: str | None, run: str | None) -> LocalRun:
    """The stored run that *run* means, where no collector knows it; *error* is why none does.

    Raises:
        TlogsError: *error*, where there is no such run, or the collector was named.
    """
    if collector is not None:
        raise error
    library = LocalLibrary(directory or directory_of_runs())
    try:
        return library.open(run or "latest")
    except ConfigError as missing:
        named = run is not None and isinstance(error, CollectorUnavailable) and library.runs()
        raise (missing if named or directory is not None else error) from None


def grouped(by_rank: Mapping[int, Said]) -> Iterable[tuple[RankSet, Said]]:
    """The same from many ranks as one, the smallest group first: the odd ones are what matters."""
    groups: dict[Said, set[int]] = {}
    for rank, said in by_rank.items():
        groups.setdefault(said, set()).add(rank)
    return [(RankSet.of(ranks), said) for said, ranks in sorted(groups.items(), key=lambda item: len(item[1]))]


def answers(result: Result) -> str:
    """Each answer on a line of its own, with the ranks that gave it."""
    lines = []
    until = ", until it is reset" if result.until is None else f", until {result.until.astimezone():%H:%M:%S}"
    if result.ended:
        until = ""
    if result.applied:
        lines.append(
            f"applied  {in_words(result.applied)} in {result.took_ms:.0f} ms{until} (revision {result.revision})"
        )
    for ranks, why in grouped(result.ignored):
        lines.append(f"ignored  {in_words(ranks)}: {why}")
    for ranks, why in grouped(result.failed):
        lines.append(f"failed   {in_words(ranks)}: {why}")
    if result.silent:
        lines.append(f"silent   {in_words(result.silent)}: no answer yet; applied when they reconnect")
    if not result.applied and not result.ended:
        lines.append("no rank applied it")
    return "".join(f"{line}\n" for line in lines)


def in_words(ranks: RankSet) -> str:
    """`rank 3`, `ranks 0-3,8`."""
    return f"rank{'s' if len(ranks) > 1 else ''} {ranks}"
