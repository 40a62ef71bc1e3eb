"""`tlogs recover`: deliver the outboxes of dead workers on this host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Final

import click

from tlogs.access.discovery import find_address
from tlogs.agent.recovery import HELD, NOT_OURS, Recovered, Wish, recover
from tlogs.agent.search import find_outboxes
from tlogs.agent.setting import Setting
from tlogs.cli import candidates
from tlogs.cli.options import collector_options, json_option
from tlogs_shared.errors import CollectorUnavailable, ConfigError
from tlogs_shared.host import is_running
from tlogs_shared.protocol.notice import FILE_NAME, Notice

__all__ = ["command"]

END_S: Final = 30.0
"""A collector that was started for this ends within this time."""


@click.command("recover")
@click.argument("outboxes", nargs=-1, type=click.Path(path_type=Path), metavar="[OUTBOX...]")
@click.option("--to", metavar="ENDPOINT", help="Send them to this collector, whichever they name.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Store them in this directory; no collector has to be running.",
)
@click.option("--run", metavar="RUN", shell_complete=candidates.runs, help="Only outboxes that belong to this run.")
@click.option("--quiet", is_flag=True, help="Print only what could not be delivered.")
@collector_options
@json_option
def command(
    outboxes: tuple[Path, ...],
    to: str | None,
    directory: Path | None,
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
      tlogs recover --to node0:5655 node3-4242-*.outbox
      tlogs recover --dir tlogs-runs
    """
    if sum(given is not None for given in (to, directory, collector)) > 1:
        raise ConfigError("--to, --dir and --collector contradict each other: give one")
    if (missing := [str(path) for path in outboxes if not path.exists()]) and not quiet:
        raise ConfigError(f"no such file: {', '.join(missing)}")
    secret = None if secret_file is None else str(secret_file)
    setting = Setting(
        None if secret else os.environ.get("TLOGS_SECRET"),
        secret or os.environ.get("TLOGS_SECRET_FILE"),
        os.environ.get("TLOGS_INSECURE", "") not in ("", "0"),
    )
    only = find_address(collector, os.environ, secret_file=secret) if collector else None
    with nullcontext(to) if directory is None else _collector_of(directory) as target:
        found = list(recover(outboxes or find_outboxes(os.environ), os.environ, Wish(target, only, run, setting)))
    return _show(found, bool(outboxes), quiet=quiet, as_json=as_json)


def _show(found: list[Recovered], were_named: bool, *, quiet: bool, as_json: bool) -> int:
    """Print what became of each outbox; the exit status."""
    if not were_named or quiet:
        found = [one for one in found if one.problem not in NOT_OURS]
    for one in found if not as_json else ():
        if one.problem and not (quiet and one.problem == HELD):
            click.echo(f"{one.path}: {one.problem}", err=True)
        elif one.records is None and not quiet:
            click.echo(f"{one.path}: delivered by the agent of this host")
        elif not quiet:
            click.echo(f"{one.label}: {one.records} records delivered from {one.path}")
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found]))
    elif not found and not were_named and not quiet:
        click.echo("no outbox of a dead worker here")
    return int(any(one.problem for one in found))


@contextmanager
def _collector_of(directory: Path) -> Iterator[str]:
    """A collector that stores into *directory*: the one that does, or one for as long as it is needed."""
    if _is_served(directory):
        yield str(directory.resolve())
        return
    command = [sys.executable, "-m", "tlogs_collector", "--dir", str(directory), "--listen", "tcp://127.0.0.1:0"]
    process = subprocess.Popen([*command, "--quiet"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        first = process.stderr.readline()
        if "listening on" not in first:
            raise CollectorUnavailable(first.strip() or f"{directory}: no collector could be started for it")
        yield str(directory.resolve())
    finally:
        process.terminate()
        try:
            process.communicate(timeout=END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _is_served(directory: Path) -> bool:
    file = directory / FILE_NAME
    try:
        return is_running(Notice.from_json(file.read_text(encoding="utf-8"), str(file)).pid)
    except (OSError, UnicodeDecodeError, ConfigError):
        return False
