"""`tlogs check`: from any node, what a worker here would do, and where each answer comes from."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from tlogs.access.connection import Operator
from tlogs.access.discovery import Address, find_address, find_live
from tlogs.cli.options import collector_options
from tlogs.outbox.file import outbox_capacity, outbox_directory
from tlogs.worker.config import Config, unknown_names
from tlogs.worker.identity import identify
from tlogs_shared.errors import TlogsError
from tlogs_shared.version import __version__

__all__ = ["command"]


@click.command("check", short_help="what a worker here would do, and where that comes from")
@collector_options
def command(collector: str | None, secret_file: Path | None) -> int:
    """Show rank, outbox, endpoint, secret, connection and version as a worker on this node would find them.

    Put it in front of a job to see what its workers see. The exit status is 1 if something would not work.

    \b
    tlogs check
    srun tlogs check
    """
    problems = 0
    for name, look in _checks(collector, None if secret_file is None else str(secret_file)):
        try:
            click.echo(f"{name:10} {look()}")
        except TlogsError as error:
            problems += 1
            click.echo(f"{name:10} PROBLEM: {error}")
    for sentence in unknown_names(os.environ):
        problems += 1
        click.echo(f"{'variables':10} PROBLEM: {sentence}")
    return 1 if problems else 0


def _checks(collector: str | None, secret_file: str | None) -> Iterator[tuple[str, Callable[[], str]]]:
    environ = os.environ

    def version() -> str:
        return __version__

    def rank() -> str:
        origin = identify(environ)
        where = "assumed: no launcher's variables here" if origin.provisional else "from the environment"
        return (
            f"{origin.label} of {origin.world_size} on {origin.host} ({where}); run {origin.run or 'by ' + origin.key}"
        )

    def outbox() -> str:
        source = "TLOGS_OUTBOX_DIR" if environ.get("TLOGS_OUTBOX_DIR") else "the temporary directory"
        return f"{outbox_directory(environ)} ({source}), up to {outbox_capacity(environ) >> 20} MiB a rank"

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
            runs = operator.ask("runs")
        live = sum(row["live"] for row in runs)
        return f"the collector answers; {len(runs)} runs, {live} live"

    yield "version", version
    yield "settings", settings
    yield "rank", rank
    yield "outbox", outbox
    yield "collector", endpoint
    yield "connection", connection
