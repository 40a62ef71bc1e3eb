"""`tlogs check`: from any node, what a worker here would use, and where each answer comes from."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from tlogs.access.connection import Operator
from tlogs.access.discovery import Address, find_address, find_live
from tlogs.cli import candidates
from tlogs.cli.options import collector_options, json_option
from tlogs.outbox.file import outbox_capacity
from tlogs.outbox.places import places
from tlogs.worker.config import Config, unknown_names
from tlogs.worker.identity import identify
from tlogs_shared.errors import ConfigError, TlogsError
from tlogs_shared.host import SHARED_MEMORY
from tlogs_shared.version import __version__

__all__ = ["command"]


@click.command("check")
@click.option("--run", metavar="NAME", shell_complete=candidates.runs, help="As if TLOGS_RUN were NAME.")
@collector_options
@json_option
def command(run: str | None, collector: str | None, secret_file: Path | None, as_json: bool) -> int:
    """Show the rank, outbox, collector, secret, connection and version that a worker on this host would use.

    Run it in place of a job to see what its workers see. The exit status is 1 if something would not work.

    \b
    Examples:
      tlogs check
      srun tlogs check
    """
    found: list[tuple[str, bool, str]] = []
    for name, look in _checks(run, collector, None if secret_file is None else str(secret_file)):
        try:
            found.append((name, True, look()))
        except TlogsError as error:
            found.append((name, False, str(error)))
    found += [("variables", False, sentence) for sentence in unknown_names(os.environ)]
    if as_json:
        click.echo(json.dumps({name: {"ok": ok, "text": text} for name, ok, text in found}))
    else:
        for name, ok, text in found:
            click.echo(f"{name:10} {'' if ok else click.style('PROBLEM: ', fg='red')}{text}")
    return int(not all(ok for _, ok, _ in found))


def _checks(run: str | None, collector: str | None, secret_file: str | None) -> Iterator[tuple[str, Callable[[], str]]]:
    environ = os.environ

    def version() -> str:
        return __version__

    def rank() -> str:
        origin = identify(environ, run=run)
        run_named = f"run {origin.run}" if origin.run else f"the run of {origin.key}"
        where = "assumed: no launcher set its variables here" if origin.provisional else "from the environment"
        return f"{origin.label} of {origin.world_size} on {origin.host} ({where}); {run_named}"

    def outbox() -> str:
        complaints: list[str] = []
        path = next(places(environ, complaints.append), None)
        if path is None or complaints:
            raise ConfigError(complaints[0] if complaints else "no directory takes an outbox; set TLOGS_OUTBOX_DIR")
        asked = environ.get("TLOGS_OUTBOX_DIR")
        source = "TLOGS_OUTBOX_DIR" if asked else "in memory" if SHARED_MEMORY in path.parents else "temporary files"
        return f"{path} ({source}), up to {outbox_capacity(environ) >> 20} MiB a rank"

    def settings() -> str:
        return "TLOGS_DISABLE is set: nothing is forwarded" if Config.from_environ(environ).disabled else "ok"

    def address() -> Address:
        named = find_address(collector, environ, secret_file=secret_file)
        return named or find_live(environ, secret_file=secret_file)

    def endpoint() -> str:
        found = address()
        return f"{found.endpoint} ({found.how}), secret from {found.secret_source}"

    def connection() -> str:
        with Operator(address()) as operator:
            runs = operator.runs()
        live = sum(row["live"] for row in runs)
        return f"the collector answers; {len(runs)} run{'s' if len(runs) != 1 else ''}, {live} live"

    yield "version", version
    yield "settings", settings
    yield "rank", rank
    yield "outbox", outbox
    yield "collector", endpoint
    yield "connection", connection
