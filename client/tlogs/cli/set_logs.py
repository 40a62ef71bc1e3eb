"""`tlogs set-logs`: change levels on a running job."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import click

from tlogs.access.connection import ANSWER_S, author
from tlogs.cli.aftermath import aftermath, hints
from tlogs.cli.answers import answers, in_words, job_at, run_option
from tlogs.cli.options import DURATION, collector_options, json_option
from tlogs.cli.spec import SpecCommand
from tlogs.levels.clauses import parse_specs
from tlogs.levels.registry import recorded
from tlogs.operator.job import DEFAULT_TTL_S, Job, Result, level_name
from tlogs_shared.errors import ConfigError
from tlogs_shared.protocol.lease import Lease
from tlogs_shared.rankset import RankSet

__all__ = ["set_logs"]

WATCH_S: Final = 3.0
"""On a terminal: so long the answer waits for what comes of the change."""

MANY_RANKS: Final = 64
"""Turning everything up on more ranks is asked about."""


@click.command("set-logs", cls=SpecCommand, short_help="change levels on the running job")
@click.argument("specs", nargs=-1, required=True, metavar="SPEC...")
@click.option("--ranks", metavar="SET", default="all", help="Only these ranks: 0-3,8 or 0-63/8 or ^5 (all but 5).")
@click.option("--hosts", metavar="GLOB", help="Only ranks on hosts whose name matches.")
@click.option("--for", "ttl", type=DURATION, metavar="TIME", help="How long it holds.  [10m]")
@click.option("--forever", is_flag=True, help="It holds until it is reset.")
@click.option("--replace", is_flag=True, help="What is not named returns to its default, as torch's set_logs does.")
@click.option("--force", is_flag=True, help="Also where TORCH_LOGS was set or a logger is disabled.")
@click.option("--timeout", type=DURATION, default=ANSWER_S, metavar="TIME", help="Wait so long for answers.  [5s]")
@click.option(
    "--watch", type=DURATION, metavar="TIME", help="Count so long what comes of it.  [3s on a terminal, else 0s]"
)
@click.option("--yes", is_flag=True, help="Do not ask, also before everything is turned up on many ranks.")
@run_option
@collector_options
@json_option
def set_logs(
    specs: tuple[str, ...],
    ranks: str,
    hosts: str | None,
    ttl: float | None,
    forever: bool,
    replace: bool,
    force: bool,
    timeout: float,
    watch: float | None,
    yes: bool,
    run: str | None,
    collector: str | None,
    secret_file: Path | None,
    as_json: bool,
) -> int:
    """Change levels on the running job: an overlay of what is named, for 10 minutes, on all ranks.

    SPEC is what TORCH_LOGS takes (+c10d,-dynamo,graph_breaks) or NAME=LEVEL (c10d=DEBUG, graph_breaks=off,
    my.module=INFO).

    \b
    tlogs set-logs c10d=DEBUG recompiles=on
    tlogs set-logs +dynamo --ranks 0-3 --for 2m
    """
    if forever and ttl is not None:
        raise ConfigError("--for and --forever: give one of them")
    settings = parse_specs(specs, recorded())
    lease = Lease(
        revision=0,
        settings=settings,
        ranks=RankSet.parse(ranks),
        hosts=hosts,
        ttl_s=None if forever else DEFAULT_TTL_S if ttl is None else ttl,
        author=author(),
        replace=replace,
        force=force,
    )
    asks = sys.stdin.isatty() and sys.stdout.isatty() and not as_json
    with job_at(collector, secret_file, run) as job:
        if not yes and _is_flood(settings) and not _accepts_flood(job, lease.ranks, asks):
            raise ConfigError("nothing was changed; name fewer ranks (--ranks 0-3) or components, or say --yes")
        began_ns = time.time_ns()
        result = job.lay(lease, timeout=timeout)
        if not as_json:
            click.echo(_announcement(specs, settings), nl=False)
        if result.ignored and not force and asks:
            click.echo(answers(result), nl=False)
            if click.confirm(f"lay it over TORCH_LOGS on {in_words(RankSet.of(result.ignored))}?"):
                result = job.lay(dataclasses.replace(lease, force=True), timeout=timeout)
        if as_json:
            click.echo(json.dumps(result.asdict()))
        else:
            _report(job, result, specs, settings, force=force, began_ns=began_ns, watch_s=watch)
    return 0 if result.is_complete else 1


def _report(
    job: Job,
    result: Result,
    specs: Sequence[str],
    settings: Mapping[str, int | bool],
    *,
    force: bool,
    began_ns: int,
    watch_s: float | None,
) -> None:
    """Who gave which answer, what to type next, and what has come of it."""
    click.echo(answers(result), nl=False)
    if result.ignored and not force:
        again = f"tlogs set-logs {' '.join(specs)} --ranks {RankSet.of(result.ignored)} --force"
        click.echo(f"to lay it over TORCH_LOGS there: {again}")
    if watch_s is None:
        watch_s = WATCH_S if sys.stdout.isatty() else 0.0
    if result.applied and watch_s > 0:
        click.echo(aftermath(job, settings, began_ns, watch_s))
        for hint in hints(settings):
            click.echo(f"  {hint}")


def _is_flood(settings: Mapping[str, int | bool]) -> bool:
    """Whether everything is turned up: a load that thousands of ranks together can feel."""
    value = settings.get("all", settings.get("torch", False))
    return value is not False and int(value) <= logging.DEBUG


def _accepts_flood(job: Job, scope: RankSet, asks: bool) -> bool:
    count = sum(1 for row in job.ranks() if row["rank"] in scope and row["state"] not in ("done", "gone"))
    if count <= MANY_RANKS:
        return True
    return asks and click.confirm(f"all of torch at DEBUG on {count} ranks: that is much to write and to store; go on?")


def _announcement(specs: Sequence[str], settings: Mapping[str, int | bool]) -> str:
    """What is about to be done; with a hint where a name without a sign means less than one might think."""
    width = max(len(name) for name in settings)
    bare = {clause.strip() for spec in specs for clause in spec.split(",")}
    lines = []
    for name, value in settings.items():
        line = f"{name:{width}} → {level_name(value)}"
        if name in bare and value == logging.INFO and value is not True:
            line += f"  ({name}=DEBUG for everything)"
        lines.append(f"{line}\n")
    return "".join(lines)
