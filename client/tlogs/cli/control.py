"""`tlogs set-logs`, `reset` and `levels`: the levels of a running job."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from tlogs.cli.aftermath import aftermath, hints
from tlogs.cli.options import DURATION, collector_options, json_option
from tlogs.cli.spec import SpecCommand
from tlogs.cli.table import duration, table
from tlogs.job import DEFAULT_TTL_S, Job, Result, connect, level_name
from tlogs.operator import ANSWER_S, author
from tlogs_shared.errors import ConfigError
from tlogs_shared.lease import Lease, parse_specs
from tlogs_shared.rankset import RankSet
from tlogs_shared.registry import recorded

__all__ = ["levels", "reset", "set_logs"]

WATCH_S: Final = 3.0
"""On a terminal: so long the answer waits for what comes of the change."""

MANY_RANKS: Final = 64
"""Turning everything up on more ranks is asked about."""

run_option = click.option("--run", metavar="RUN", help="Which live run; needed only where several are live.")


def job_at(collector: str | None, secret_file: Path | None, run: str | None) -> Job:
    """The collector that the options mean."""
    return connect(collector, run=run, secret_file=None if secret_file is None else str(secret_file))


def fold(by_rank: Mapping[int, str]) -> Iterable[tuple[RankSet, str]]:
    """The same text from many ranks as one, the smallest group first: the odd ones are what matters."""
    groups: dict[str, set[int]] = {}
    for rank, text in by_rank.items():
        groups.setdefault(text, set()).add(rank)
    return [(RankSet.of(ranks), text) for text, ranks in sorted(groups.items(), key=lambda item: len(item[1]))]


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
        if not as_json:
            click.echo(_in_words(specs, settings), nl=False)
        began_ns = time.time_ns()
        result = job.lay(lease, timeout)
        if result.ignored and not force and asks:
            click.echo(_answers(result), nl=False)
            if click.confirm(f"lay it over TORCH_LOGS on {_ranks(RankSet.of(result.ignored))}?"):
                result = job.lay(dataclasses.replace(lease, force=True), timeout)
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
    click.echo(_answers(result), nl=False)
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


def _in_words(specs: Sequence[str], settings: Mapping[str, int | bool]) -> str:
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


def _answers(result: Result) -> str:
    lines = []
    until = "until it is reset" if result.until is None else f"until {result.until.astimezone():%H:%M:%S}"
    if result.applied:
        lines.append(
            f"applied  {_ranks(result.applied)} in {result.took_ms:.0f} ms, {until} (revision {result.revision})"
        )
    for ranks, why in fold(result.ignored):
        lines.append(f"ignored  {_ranks(ranks)}: {why}")
    for ranks, why in fold(result.failed):
        lines.append(f"failed   {_ranks(ranks)}: {why}")
    if result.silent:
        lines.append(f"silent   {_ranks(result.silent)}: no answer yet; they take it over when they speak again")
    if not result.applied and not result.ended:
        lines.append("no rank has applied it")
    return "".join(f"{line}\n" for line in lines)


def _ranks(ranks: RankSet) -> str:
    return f"rank{'s' if len(ranks) > 1 else ''} {ranks}"


@click.command(short_help="end changes of levels")
@click.argument("revisions", nargs=-1, type=int, metavar="[REVISION...]")
@click.option("--timeout", type=DURATION, default=ANSWER_S, metavar="TIME", help="Wait so long for answers.  [5s]")
@run_option
@collector_options
@json_option
def reset(
    revisions: tuple[int, ...],
    timeout: float,
    run: str | None,
    collector: str | None,
    secret_file: Path | None,
    as_json: bool,
) -> int:
    """End all changes of levels, or those with these revisions (see: tlogs levels).

    \b
    tlogs reset
    tlogs reset 3 4
    """
    with job_at(collector, secret_file, run) as job:
        result = job.reset(*revisions, timeout=timeout)
        found = job.levels()
    if as_json:
        click.echo(json.dumps({**result.asdict(), "ended": list(result.ended)}))
    else:
        click.echo(f"ended revision{'s' if len(result.ended) > 1 else ''} {', '.join(map(str, result.ended))}")
        click.echo(_answers(result), nl=False)
        click.echo(_levels_table(found["ranks"]), nl=False)
    return 0 if result.is_complete else 1


@click.command(short_help="which levels are in force on which ranks")
@run_option
@collector_options
@json_option
def levels(run: str | None, collector: str | None, secret_file: Path | None, as_json: bool) -> int:
    """Show the leases in force, and each component's configured and effective level, folded by rank.

    \b
    tlogs levels
    """
    with job_at(collector, secret_file, run) as job:
        found = job.levels()
    if as_json:
        click.echo(json.dumps({"leases": found["leases"], "ranks": found["ranks"]}))
        return 0
    click.echo(_leases_table(found["leases"]), nl=False)
    click.echo(_levels_table(found["ranks"]), nl=False)
    return 0


def _leases_table(leases: list[dict[str, Any]]) -> str:
    if not leases:
        return "no leases in force\n"
    rows = []
    for lease in leases:
        settings = " ".join(f"{name}={level_name(value)}" for name, value in lease["settings"].items())
        left = "no end" if lease["ttl_s"] is None else f"{duration(lease['ttl_s'])} left"
        how = " ".join(word for word in ("replace", "force") if lease[word])
        scope = lease["ranks"] + (f" on {lease['hosts']}" if lease["hosts"] else "")
        rows.append([str(lease["revision"]), settings or "defaults", scope, left, lease["author"], how])
    return table(["LEASE", "SETS", "RANKS", "TIME", "AUTHOR", ""], rows, right="LEASE") + "\n"


def _levels_table(ranks: Mapping[str, Mapping[str, Any]]) -> str:
    """A row for each component that differs from torch's defaults anywhere, folded by rank set."""
    lines: dict[str, dict[int, str]] = {}
    artifacts: dict[int, str] = {}
    for rank, report in ranks.items():
        for name, level in report.get("components", {}).items():
            configured = level["configured"] or "-"
            lines.setdefault(name, {})[int(rank)] = f"{configured}\0{level['effective']}"
        artifacts[int(rank)] = " ".join(report.get("artifacts", ())) or "none"
    rows = []
    for name in sorted(lines):
        for group, text in fold(lines[name]):
            configured, _, effective = text.partition("\0")
            if configured != "-" or effective != "WARNING":
                rows.append([name, configured, effective, str(group)])
    found = table(["COMPONENT", "CONFIGURED", "EFFECTIVE", "RANKS"], rows) if rows else "all components at WARNING\n"
    for group, text in fold(artifacts):
        found += f"artifacts on, {_ranks(group)}: {text}\n"
    return found
