"""`tlogs-collector`: arguments and signals; `daemon` does the rest."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from tlogs_collector.announcement import own_secret
from tlogs_collector.daemon import Settings, run
from tlogs_collector.listener import Listener, raise_file_limit
from tlogs_collector.stop import Stop
from tlogs_shared.errors import ConfigError, TlogsError
from tlogs_shared.host import read_secret_file
from tlogs_shared.protocol.endpoint import DEFAULT_PORT, Endpoint
from tlogs_shared.protocol.secret import parse_secret
from tlogs_shared.quantity import parse_duration, parse_size
from tlogs_shared.storage.layout import RUN_NAME_RULE, is_run_name
from tlogs_shared.version import __version__

__all__ = ["main"]

DEFAULT_LISTEN: Final = f"tcp://127.0.0.1:{DEFAULT_PORT}"


@click.command(
    context_settings={
        "token_normalize_func": lambda name: name.replace("_", "-"),
        "max_content_width": 80,
        "help_option_names": ["-h", "--help"],
    }
)
@click.option(
    "--listen", metavar="ENDPOINT", help=f"Where ranks connect; port 0 picks a free port.  [{DEFAULT_LISTEN}]"
)
@click.option(
    "--dir",
    "directory",
    metavar="DIR",
    envvar="TLOGS_DIR",
    default="./tlogs-runs",
    help="Where runs are stored.  [TLOGS_DIR, else ./tlogs-runs]",
)
@click.option("--run", metavar="NAME", help="Store everything in this run; continue it if it exists.")
@click.option("--quiet", is_flag=True, help="Do not print records on standard output.")
@click.option(
    "--secret-file",
    metavar="FILE",
    envvar="TLOGS_SECRET_FILE",
    help="Admit only who has this secret.  [one made for this user]",
)
@click.option("--insecure", is_flag=True, help="Admit anyone who can reach the endpoint.")
@click.option(
    "--durability",
    type=click.Choice(["sync", "write"]),
    default="sync",
    help="Acknowledge records once synced, or once written.  [sync]",
)
@click.option(
    "--grace", metavar="TIME", default="20s", help="After the first Ctrl-C, wait this long for ranks to end.  [20s]"
)
@click.option(
    "--max-bytes",
    metavar="SIZE",
    default="20GB",
    help="Keep each run below this; remove its oldest segments first.  [20GB]",
)
@click.option("--keep-free", metavar="PERCENT", default="5", help="Keep this much of the file system free.  [5]")
@click.option("--retain", metavar="AGE", help="Remove runs that ended longer ago than this.  [never]")
@click.version_option(__version__, prog_name="tlogs-collector")
def command(**given: Any) -> None:
    """Collect the records of every rank of a job, keep them, and print them merged.

    \b
    Example:
      tlogs-collector &
      TLOGS_COLLECTOR=127.0.0.1:5655 torchrun --nproc-per-node 4 train.py
    """
    listen = Endpoint.parse(given["listen"] or DEFAULT_LISTEN, source="--listen", listening=True)
    settings = _settings(given, os.environ)
    raise_file_limit()
    listener = Listener(listen, settings.secret, os.environ, asked=given["listen"] is not None)
    stop = Stop()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.request())
    run(settings, listener, stop, say)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; report failure to start in one line, with status 2."""
    try:
        command.main(arguments, prog_name="tlogs-collector", standalone_mode=False)
    except click.ClickException as error:
        text = error.format_message().replace("\n", " ")
        say(f"{text} (see tlogs-collector --help)")
        sys.exit(2)
    except TlogsError as error:
        say(str(error))
        sys.exit(2)
    except click.Abort:
        sys.exit(130)


def say(text: str) -> None:
    """A line for the person who started the daemon."""
    click.echo(f"tlogs-collector: {text}", err=True)


def _settings(given: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    if given["run"] is not None and not is_run_name(given["run"]):
        raise ConfigError(f"--run {given['run']!r}: expected {RUN_NAME_RULE}")
    try:
        keep_free = float(given["keep_free"].rstrip("%")) / 100
    except ValueError:
        keep_free = -1.0
    if not 0 <= keep_free < 1:
        raise ConfigError(f"--keep-free {given['keep_free']!r}: expected a percentage such as 5")
    directory = Path(given["directory"]).absolute()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--dir {directory}: {error.strerror}; choose a directory that can be written") from None
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        raise ConfigError(f"--dir {directory}: not readable and writable; choose another directory")
    return Settings(
        directory=directory,
        run=given["run"],
        quiet=given["quiet"],
        secret=_secret(given, environ, directory),
        wait_for_sync=given["durability"] == "sync",
        grace_s=parse_duration(given["grace"], source="--grace"),
        max_bytes=parse_size(given["max_bytes"], source="--max-bytes"),
        keep_free=keep_free,
        retain_s=None if given["retain"] is None else parse_duration(given["retain"], source="--retain"),
    )


def _secret(given: Mapping[str, Any], environ: Mapping[str, str], directory: Path) -> bytes | None:
    if given["insecure"]:
        if given["secret_file"]:
            raise ConfigError("--insecure and a secret file: give one of them")
        return None
    if given["secret_file"]:
        secret, warning = read_secret_file(given["secret_file"])
        if warning:
            say(warning)
        return secret
    if text := environ.get("TLOGS_SECRET"):
        return parse_secret(text, "TLOGS_SECRET")
    return own_secret(directory)
