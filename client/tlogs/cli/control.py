"""`tlogs set-logs`, `reset` and `levels`: the levels of a running job."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from tlogs.cli.options import DURATION, collector_options, json_option
from tlogs.cli.table import duration, table
from tlogs.job import DEFAULT_TTL_S, Job, Result, connect, level_name
from tlogs.operator import ANSWER_S, author
from tlogs_shared.errors import ConfigError
from tlogs_shared.lease import Lease, parse_specs
from tlogs_shared.rankset import RankSet
from tlogs_shared.registry import recorded

__all__ = ["levels", "reset", "set_logs"]

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


@click.command(
    "set-logs", short_help="change levels on the running job", context_settings={"ignore_unknown_options": True}
)
@click.argument("specs", nargs=-1, required=True, metavar="SPEC...", type=click.UNPROCESSED)
@click.option("--ranks", metavar="SET", default="all", help="Only these ranks: 0-3,8 or 0-63/8 or ^5 (all but 5).")
@click.option("--hosts", metavar="GLOB", help="Only ranks on hosts whose name matches.")
@click.option("--for", "ttl", type=DURATION, metavar="TIME", help="How long it holds.  [10m]")
@click.option("--forever", is_flag=True, help="It holds until it is reset.")
@click.option("--replace", is_flag=True, help="What is not named returns to its default, as torch's set_logs does.")
@click.option("--force", is_flag=True, help="Also where TORCH_LOGS was set or a logger is disabled.")
@click.option("--timeout", type=DURATION, default=ANSWER_S, metavar="TIME", help="Wait so long for answers.  [5s]")
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
    unknown = [spec for spec in specs if spec.startswith("--")]
    if unknown:
        raise click.NoSuchOption(unknown[0])
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
    with job_at(collector, secret_file, run) as job:
        result = job.lay(lease, timeout)
    if as_json:
        click.echo(json.dumps(result.asdict()))
    else:
        click.echo(_in_words(settings), nl=False)
        click.echo(_answers(result), nl=False)
        if result.ignored and not force:
            click.echo(
                f"to lay it over TORCH_LOGS: tlogs set-logs {' '.join(specs)} --ranks {RankSet.of(result.ignored)} --force"
            )
    return 0 if result.is_complete else 1


def _in_words(settings: Mapping[str, int | bool]) -> str:
    width = max(len(name) for name in settings)
    return "".join(f"{name:{width}} → {level_name(value)}\n" for name, value in settings.items())


def _answers(result: Result) -> str:
    lines = []
    until = "until it is reset" if result.until is None else f"until {result.until.astimezone():%H:%M:%S}"
    count = len(result.applied)
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
    if not count and not result.ended:
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
