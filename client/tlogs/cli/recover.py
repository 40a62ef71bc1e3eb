"""`tlogs recover`: deliver the outboxes of dead workers on this host."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import click

from tlogs.access.discovery import find_address
from tlogs.cli import candidates
from tlogs.cli.options import collector_options, json_option
from tlogs.worker.recovery import ELSEWHERE, HELD, recover
from tlogs.worker.recovery import candidates as candidates_here
from tlogs_shared.errors import ConfigError
from tlogs_shared.host import outbox_places

__all__ = ["command"]


@click.command("recover")
@click.argument("outboxes", nargs=-1, type=click.Path(path_type=Path), metavar="[OUTBOX...]")
@click.option("--run", metavar="RUN", shell_complete=candidates.runs, help="Only outboxes that belong to this run.")
@click.option("--quiet", is_flag=True, help="Print only what could not be delivered.")
@collector_options
@json_option
def command(
    outboxes: tuple[Path, ...],
    run: str | None,
    quiet: bool,
    collector: str | None,
    secret_file: Path | None,
    as_json: bool,
) -> int:
    """Deliver the records that dead workers left in their outboxes on this host, each to the run it belongs to.

    Without OUTBOX: all of yours; with --collector: those that belong to that collector. The exit status is 1 if
    something could not be delivered; it is kept.

    \b
    Examples:
      tlogs recover
      tlogs recover --run nightly --quiet
    """
    secret = None if secret_file is None else str(secret_file)
    only = find_address(collector, os.environ, secret_file=secret)
    missing = [str(path) for path in outboxes if not path.exists()]
    if missing and not quiet:
        raise ConfigError(f"no outbox at {', '.join(missing)}")
    paths = outboxes or candidates_here(outbox_places(os.environ))
    shown = []
    problems = False
    for found in recover(paths, os.environ, only, run):
        if found.problem in (HELD, ELSEWHERE) and not outboxes:
            continue  # the outboxes of living processes
        problems |= bool(found.problem)
        shown.append(found)
        if found.problem and not as_json and not (quiet and found.problem == HELD):
            click.echo(f"{found.path}: {found.problem}", err=True)
        elif not quiet and not as_json:
            click.echo(f"{found.label}: {found.records} records delivered from {found.path}")
    if as_json:
        click.echo(json.dumps([asdict(found) for found in shown]))
    elif not shown and not quiet:
        click.echo("no outbox of a dead worker here")
    return int(problems)
