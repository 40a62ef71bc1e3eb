"""`tlogs levels` and `tlogs reset`: the leases in force, and their end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tlogs.access.connection import ANSWER_S
from tlogs.cli.answers import answers, fold, in_words, job_at, run_option
from tlogs.cli.options import DURATION, collector_options, json_option
from tlogs.cli.table import duration, table
from tlogs.operator.job import level_name

__all__ = ["levels", "reset"]


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
    elif not result.ended:
        click.echo("nothing to reset")
    else:
        click.echo(f"ended revision{'s' if len(result.ended) > 1 else ''} {', '.join(map(str, result.ended))}")
        if left := [str(revision) for revision in revisions if revision not in result.ended]:
            click.echo(f"not in force: revision{'s' if len(left) > 1 else ''} {', '.join(left)}")
        click.echo(answers(result), nl=False)
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
        if lease.get("outside"):
            how = f"{how} (no rank {lease['outside']} any more)".strip()
        rows.append([str(lease["revision"]), settings or "defaults", scope, left, lease["author"], how])
    return table(["LEASE", "SETS", "RANKS", "TIME", "AUTHOR", ""], rows, right="LEASE") + "\n"


def _levels_table(ranks: Mapping[str, Mapping[str, Any]]) -> str:
    """A row for each component that differs from torch's defaults anywhere, folded by rank set."""
    if not ranks:
        return "no live rank\n"
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
        found += f"artifacts named, {in_words(group)}: {text}\n"
    return found
