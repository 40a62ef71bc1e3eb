"""`tlogs-collector`: arguments, signals, and putting the parts together."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from tlogs_collector.announcement import Announcement, own_secret
from tlogs_collector.hub.hub import Hub
from tlogs_collector.listener import Listener, raise_file_limit
from tlogs_collector.recoverer import Printer, Recovery
from tlogs_collector.server import Edges, Server
from tlogs_collector.store.local.catalogue import left_open
from tlogs_collector.store.local.local_store import LocalStore
from tlogs_shared.errors import ConfigError, TlogsError
from tlogs_shared.host import boot_id, is_running, read_secret_file
from tlogs_shared.origin import RUN_NAME, Origin
from tlogs_shared.protocol.endpoint import DEFAULT_PORT, Endpoint
from tlogs_shared.protocol.notice import Notice
from tlogs_shared.protocol.secret import parse_secret
from tlogs_shared.quantity import parse_duration, parse_size
from tlogs_shared.version import __version__

__all__ = ["main"]

DEFAULT_LISTEN: Final = f"tcp://127.0.0.1:{DEFAULT_PORT}"


@dataclass(frozen=True, slots=True)
class Options:
    """The command line, checked."""

    listen: Endpoint
    listen_asked: bool
    directory: Path
    run: str | None
    quiet: bool
    secret: bytes | None
    wait_for_sync: bool
    grace_s: float
    max_bytes: int
    keep_free: float
    retain_s: float | None


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
    serve(_options(given, os.environ))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; what cannot be done is said in one line, with status 2."""
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


def _options(given: Mapping[str, Any], environ: Mapping[str, str]) -> Options:
    listen = Endpoint.parse(given["listen"] or DEFAULT_LISTEN, source="--listen", listening=True)
    if given["run"] is not None and RUN_NAME.fullmatch(given["run"]) is None:
        raise ConfigError(f"--run {given['run']!r}: expected a name of up to 128 letters, digits, '.', '_' and '-'")
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
    return Options(
        listen=listen,
        listen_asked=given["listen"] is not None,
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


def serve(options: Options) -> None:
    """Run one collector until it is told to stop.

    Raises:
        ConfigError: it cannot begin; the text says what to do.
    """
    raise_file_limit()
    listener = Listener(options.listen, options.secret, os.environ, asked=options.listen_asked)
    instance = secrets.token_hex(8)
    store = LocalStore(
        options.directory, max_bytes=options.max_bytes, keep_free=options.keep_free, retain_s=options.retain_s
    )
    reachable = (
        Endpoint(socket.gethostname(), listener.endpoint.port) if options.listen.is_wildcard else listener.endpoint
    )
    announcement = Announcement(
        Notice(
            endpoint=str(reachable),
            secret=None if options.secret is None else options.secret.decode(),
            pid=os.getpid(),
            host=socket.gethostname(),
            boot_id=boot_id(),
            directory=str(options.directory),
            version=__version__,
            socket=listener.path,
            instance=instance,
        ),
        os.environ,
    )
    here = boot_id()

    def is_alive(origin: Origin) -> bool | None:
        return is_running(origin.pid) if origin.boot_id == here != "" else None

    left = left_open(options.directory)
    hub = Hub(
        new_name=lambda: f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}",
        is_alive=is_alive,
        boot_id=here,
        instance=instance,
        only_run=options.run,
        known=left,
    )
    recovery = Recovery(announcement.path)
    edges = Edges(
        say=say,
        run_opened=announcement.add_run,
        recover=recovery.want,
        is_recovering=recovery.is_running,
    )
    server = Server(listener, store, hub, edges, grace_s=options.grace_s, wait_for_sync=options.wait_for_sync)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.stop())
    say(f"listening on {reachable}, storing in {options.directory}")
    if left:
        names = ", ".join(known.name for known in left[:3]) + (f" and {len(left) - 3} more" if len(left) > 3 else "")
        what = f"run {names} was" if len(left) == 1 else f"runs {names} were"
        say(f"{what} left open by an earlier collector; continued when ranks reconnect")
    printer = None if options.quiet else Printer(announcement.path)
    try:
        server.run()
        server.farewell(lambda: printer is not None and printer.is_running())
    finally:
        if printer is not None:
            printer.end()
        recovery.end()
        announcement.withdraw()
    for line in hub.closing_lines():
        say(line)
    server.close_runs()
    listener.close()
    store.close()
