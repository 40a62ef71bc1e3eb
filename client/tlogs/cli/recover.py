"""`tlogs recover`: bring in the outboxes of dead workers on this host."""

from __future__ import annotations

import os
from pathlib import Path

import click

from tlogs.access.discovery import find_address
from tlogs.cli.options import collector_options
from tlogs.outbox.file import outbox_directory
from tlogs.worker.recovery import HELD, candidates, recover
from tlogs_shared.errors import ConfigError

__all__ = ["command"]


@click.command("recover", short_help="bring in what dead workers on this host left behind")
@click.argument("outboxes", nargs=-1, type=click.Path(path_type=Path), metavar="[OUTBOX...]")
@click.option("--quiet", is_flag=True, help="Say nothing unless something could not be brought in.")
@collector_options
def command(outboxes: tuple[Path, ...], quiet: bool, collector: str | None, secret_file: Path | None) -> int:
    """Bring in the outboxes of dead workers on this host, each into the run that it names.

    Without OUTBOX: all of this user's; with --collector: those that belong to that collector.

    \b
    tlogs recover
    """
    secret = None if secret_file is None else str(secret_file)
    only = find_address(collector, os.environ, secret_file=secret)
    missing = [str(path) for path in outboxes if not path.exists()]
    if missing and not quiet:
        raise ConfigError(f"no outbox at {', '.join(missing)}")
    paths = outboxes or candidates(outbox_directory(os.environ))
    count = problems = 0
    for found in recover(paths, os.environ, only):
        if found.problem == HELD and not outboxes:
            continue  # most of all there are belong to processes that are alive
        count += 1
        if found.problem:
            problems += 1
            if not (quiet and found.problem == HELD):
                click.echo(f"{found.path}: {found.problem}", err=True)
        elif not quiet:
            click.echo(f"{found.label}: {found.records} records brought in from {found.path}")
    if not count and not quiet:
        click.echo("no outbox of a dead worker here")
    return 1 if problems else 0
