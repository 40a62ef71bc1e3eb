"""`tlogs levels` and `tlogs reset`: the leases in force, and their end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from tlogs.access.connection import ANSWER_S
from tlogs.cli import candidates
from tlogs.cli.answers import answers, grouped, in_words, job_at, run_option
from tlogs.cli.options import DURATION, collector_options, json_option, live_run_argument, one_run
from tlogs.cli.table import duration, show_table
from tlogs_shared.level_names import setting_text
from tlogs_shared.protocol.rows import LeaseRow, RankLevels

__all__ = ["levels", "reset"]


@click.command()
@click.argument("revisions", nargs=-1, type=int, metavar="[REVISION...]", shell_complete=candidates.revisions)
@click.option("--timeout", type=DURATION, default=ANSWER_S, metavar="TIME", help="How long to wait for answers.  [5s]")
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
    """Undo all changes of log levels, or only these revisions (listed by tlogs levels).

    \b
    Examples:
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
        _show_levels(found["ranks"])
    return 0 if result.is_complete else 1


@click.command()
@live_run_argument
@collector_options
@json_option
def levels(
    run: str | None, run_option: str | None, collector: str | None, secret_file: Path | None, as_json: bool
) -> int:
    """Show the changes in force (leases), and each component's configured and effective level, by rank.

    \b
    Examples:
      tlogs levels
      tlogs levels --json | jq .leases
    """
    with job_at(collector, secret_file, one_run(run, run_option)) as job:
        found = job.levels()
    if as_json:
        click.echo(json.dumps({"leases": found["leases"], "ranks": found["ranks"]}))
        return 0
    _show_leases(found["leases"])
    _show_levels(found["ranks"])
    return 0


def _show_leases(leases: Sequence[LeaseRow]) -> None:
    if not leases:
        click.echo("no leases in force")
        return
    rows = []
    for lease in leases:
        settings = " ".join(f"{name}={setting_text(value)}" for name, value in lease["settings"].items())
        left = "until reset" if lease["ttl_s"] is None else f"{duration(lease['ttl_s'])} left"
        how = " ".join(word for word, given in (("replace", lease["replace"]), ("force", lease["force"])) if given)
        scope = lease["ranks"] + (f" on {lease['hosts']}" if lease["hosts"] else "")
        if lease.get("outside"):
            how = f"{how} (rank {lease['outside']} no longer exists)".strip()
        rows.append([str(lease["revision"]), settings or "defaults", scope, left, lease["author"], how])
    show_table(["LEASE", "SETS", "RANKS", "TIME", "AUTHOR", ""], rows, right="LEASE")
    click.echo()


def _show_levels(ranks: Mapping[str, RankLevels]) -> None:
    """Print a row for each component that differs from torch's defaults anywhere, folded by rank set."""
    if not ranks:
        click.echo("no rank is live")
        return
    lines: dict[str, dict[int, tuple[str, str]]] = {}
    artifacts: dict[int, str] = {}
    for rank, report in ranks.items():
        for name, level in report.get("components", {}).items():
            configured = level["configured"] or "-"
            lines.setdefault(name, {})[int(rank)] = (configured, level["effective"])
        artifacts[int(rank)] = " ".join(report.get("artifacts", ()))
    rows = []
    for name in sorted(lines):
        for group, (configured, effective) in grouped(lines[name]):
            if configured != "-" or effective != "WARNING":
                rows.append([name, configured, effective, str(group)])
    if rows:
        show_table(["COMPONENT", "CONFIGURED", "EFFECTIVE", "RANKS"], rows)
    else:
        click.echo("all components at WARNING")
    for group, text in grouped(artifacts):
        click.echo(f"artifacts on, {in_words(group)}: {text}" if text else f"no artifacts on: {in_words(group)}")
