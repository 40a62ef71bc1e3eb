"""Candidates for shell completion: runs, ranks, components, artifacts.

Somebody is waiting with a finger on the Tab key: a candidate costs a look at a directory, at most a short question to
a collector, and a source that fails has no candidates.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from tlogs.levels.registry import recorded
from tlogs_shared.errors import TlogsError
from tlogs_shared.level_names import NAMES

if TYPE_CHECKING:
    from tlogs.operator.job import Job

__all__ = ["artifacts", "collectors", "components", "levels", "loggers", "ranks", "revisions", "runs", "specs"]

PATIENCE_S: Final = 0.1
"""A collector is given this long for each of two answers: longer is felt at the keyboard."""

Source = Callable[[click.Context, click.Parameter, str], list[str]]


def _candidates(find: Callable[[click.Context, str], Iterable[str]]) -> Source:
    """Offer those of *find* that begin as what was typed."""

    @wraps(find)
    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        try:
            return [text for text in find(ctx, incomplete) if text.startswith(incomplete)]
        except (TlogsError, OSError):
            return []

    return complete


@_candidates
def components(ctx: click.Context, incomplete: str) -> Iterable[str]:
    """Torch's components."""
    return sorted(recorded().components)


@_candidates
def artifacts(ctx: click.Context, incomplete: str) -> Iterable[str]:
    """Torch's artifacts."""
    return sorted(recorded().artifacts)


@_candidates
def loggers(ctx: click.Context, incomplete: str) -> Iterable[str]:
    """Loggers of torch's components."""
    return sorted({logger for found in recorded().components.values() for logger in found})


@_candidates
def levels(ctx: click.Context, incomplete: str) -> Iterable[str]:
    """Names of levels."""
    return NAMES.values()


@_candidates
def specs(ctx: click.Context, incomplete: str) -> Iterable[str]:
    """Clauses of a SPEC: those before the last comma are kept, `NAME=` goes on with what NAME can be set to."""
    before, comma, last = incomplete.rpartition(",")
    registry = recorded()
    name, equals, _ = last.partition("=")
    if equals:
        values = ("on", "off") if name in registry.artifacts else (*NAMES.values(), "on", "off")
        return [f"{before}{comma}{name}={value}" for value in values]
    sign = last[:1] if last[:1] in ("+", "-") else ""
    names = sorted(registry.components) if sign else sorted({*registry.components, *registry.artifacts})
    return [f"{before}{comma}{sign}{name}" for name in names]


@_candidates
def runs(ctx: click.Context, incomplete: str) -> Iterable[str]:
    """Runs in the directory that is meant and in those of this user's collectors, the newest name first."""
    from tlogs.access.discovery import live_notices

    given = ctx.params.get("directory") or os.environ.get("TLOGS_DIR")
    directories = [Path(given or "tlogs-runs")]
    if not given:
        directories += [Path(notice.directory) for notice in live_notices(os.environ)]
    names = {path.parent.name for directory in directories for path in directory.glob("*/run.json")}
    return ["latest", *sorted(names, reverse=True)]


@_candidates
def collectors(ctx: click.Context, incomplete: str) -> Iterable[str]:
    """Directories of this user's collectors here: endpoints hold colons, at which shells split words."""
    from tlogs.access.discovery import live_notices

    return [notice.directory for notice in live_notices(os.environ)]


@_candidates
def ranks(ctx: click.Context, incomplete: str) -> Iterable[str]:
    """The ranks of the running job, each alone and all together; those before the last comma are kept."""
    from tlogs_shared.rankset import RankSet

    before, comma, _ = incomplete.rpartition(",")
    with _job(ctx) as job:
        found = RankSet.of(row["rank"] for row in job.census()["rows"])
    names = map(str, found)
    return [f"{before}{comma}{name}" for name in names] if comma else ["all", str(found), *names]


@_candidates
def revisions(ctx: click.Context, incomplete: str) -> Iterable[str]:
    """The revisions of the leases in force."""
    with _job(ctx) as job:
        return [str(lease["revision"]) for lease in job.levels()["leases"]]


def _job(ctx: click.Context) -> Job:
    from tlogs.operator.job import connect

    given = ctx.params
    run, secret_file = given.get("run_option") or given.get("run"), given.get("secret_file")
    return connect(given.get("collector"), run=run, secret_file=secret_file and str(secret_file), timeout=PATIENCE_S)
