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
from tlogs.cli import candidates
from tlogs.cli.aftermath import aftermath, hints
from tlogs.cli.answers import answers, in_words, job_at, run_option
from tlogs.cli.options import DURATION, collector_options, hosts_option, json_option, ranks_option
from tlogs.cli.spec import SpecCommand
from tlogs.levels.clauses import parse_specs
from tlogs.levels.registry import recorded
from tlogs.operator.job import DEFAULT_TTL_S, Job, Result
from tlogs_shared.end import RUNNING, STARTING
from tlogs_shared.errors import ConfigError
from tlogs_shared.level_names import setting_text
from tlogs_shared.protocol.lease import Lease
from tlogs_shared.rankset import RankSet

__all__ = ["set_logs"]

WATCH_S: Final = 3.0
"""On a terminal, how long records of the changed names are counted before the answer is complete."""

MANY_RANKS: Final = 64
"""On more ranks than this, turning everything up needs a confirmation."""


@click.command("set-logs", cls=SpecCommand)
@click.argument("specs", nargs=-1, required=True, metavar="SPEC...", shell_complete=candidates.specs)
@ranks_option
@hosts_option
@click.option("--for", "ttl", type=DURATION, metavar="TIME", help="Lifetime of the change.  [10m]")
@click.option("--forever", is_flag=True, help="Keep the change until it is reset.")
@click.option("--replace", is_flag=True, help="Reset every name that is not given, as torch's set_logs() does.")
@click.option("--force", is_flag=True, help="Also override TORCH_LOGS and disabled loggers.")
@click.option("--timeout", type=DURATION, default=ANSWER_S, metavar="TIME", help="How long to wait for answers.  [5s]")
@click.option(
    "--watch",
    type=DURATION,
    metavar="TIME",
    help="After setting, count matching records for this long.  [3s on a terminal, else 0s]",
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask before turning everything up on many ranks.")
@run_option
@collector_options
@json_option
def set_logs(
    specs: tuple[str, ...],
    ranks: str | None,
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
    """Change log levels on the running job, for 10 minutes unless told otherwise.

    Only what is named changes. SPEC is NAME=LEVEL (c10d=DEBUG, graph_breaks=off, my.module=INFO), or what TORCH_LOGS
    accepts (+c10d,-dynamo,graph_breaks). Each rank answers; the exit status is 1 if one did not apply the change.

    \b
    Examples:
      tlogs set-logs c10d=DEBUG recompiles=on
      tlogs set-logs +dynamo --ranks 0-3 --for 2m
    """
    if forever and ttl is not None:
        raise ConfigError("--for and --forever contradict each other: give one")
    settings = parse_specs(specs, recorded())
    lease = Lease(
        revision=0,
        settings=settings,
        ranks=RankSet.all() if ranks is None else RankSet.parse(ranks),
        hosts=hosts,
        ttl_s=None if forever else DEFAULT_TTL_S if ttl is None else ttl,
        author=author(),
        replace=replace,
        force=force,
    )
    asks = sys.stdin.isatty() and sys.stdout.isatty() and not as_json
    with job_at(collector, secret_file, run) as job:
        if not yes and _is_flood(settings) and not _accepts_flood(job, lease.ranks, asks):
            raise ConfigError("nothing was changed; name fewer ranks (--ranks 0-3) or components, or add --yes")
        began_ns = time.time_ns()
        result = job.lay(lease, timeout=timeout)
        if not as_json:
            click.echo(_announcement(specs, settings), nl=False)
        if result.ignored and not force and asks:
            click.echo(answers(result), nl=False)
            if click.confirm(f"override TORCH_LOGS on {in_words(RankSet.of(result.ignored))}?"):
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
    """Print each answer, what to type next, and how many records followed."""
    click.echo(answers(result), nl=False)
    if result.ignored and not force:
        again = f"tlogs set-logs {' '.join(specs)} --ranks {RankSet.of(result.ignored)} --force"
        click.echo(f"to override TORCH_LOGS there: {again}")
    if watch_s is None:
        watch_s = WATCH_S if sys.stdout.isatty() else 0.0
    if result.applied and watch_s > 0:
        click.echo(aftermath(job, settings, began_ns, watch_s))
        for hint in hints(settings):
            click.echo(f"  {hint}")


def _is_flood(settings: Mapping[str, int | bool]) -> bool:
    """True if everything is turned up: a load that thousands of ranks together can feel."""
    value = settings.get("all", settings.get("torch", False))
    return value is not False and int(value) <= logging.DEBUG


def _accepts_flood(job: Job, scope: RankSet, asks: bool) -> bool:
    count = sum(1 for row in job.census()["rows"] if row["rank"] in scope and row["state"] in (STARTING, RUNNING))
    if count <= MANY_RANKS:
        return True
    return asks and click.confirm(f"all of torch at DEBUG on {count} ranks is a lot to write and store; go on?")


def _announcement(specs: Sequence[str], settings: Mapping[str, int | bool]) -> str:
    """The settings, one a line; with a hint where a name without a sign sets less than one might think."""
    width = max(len(name) for name in settings)
    bare = {clause.strip() for spec in specs for clause in spec.split(",")}
    lines = []
    for name, value in settings.items():
        line = f"{name:{width}} → {setting_text(value)}"
        if name in bare and value == logging.INFO and value is not True:
            line += f"  ({name}=DEBUG for everything)"
        lines.append(f"{line}\n")
    return "".join(lines)
