"""One collector from its first line to its last: the parts put together around a bound socket and a request to end."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tlogs_collector.announcement import Announcement
from tlogs_collector.hub.hub import Hub
from tlogs_collector.hub.runs import Known
from tlogs_collector.listener import Listener
from tlogs_collector.printer import Printer
from tlogs_collector.recoverer import Recoverer
from tlogs_collector.server import Edges, Server
from tlogs_collector.stop import Stop
from tlogs_collector.store.local.catalogue import left_open
from tlogs_collector.store.local.local_store import LocalStore
from tlogs_shared.host import boot_id, is_running
from tlogs_shared.origin import Origin
from tlogs_shared.protocol.endpoint import Endpoint
from tlogs_shared.protocol.notice import Notice
from tlogs_shared.version import __version__

__all__ = ["Settings", "run"]


@dataclass(frozen=True, slots=True)
class Settings:
    """One collector's settings: the command line, checked."""

    directory: Path
    run: str | None
    quiet: bool
    secret: bytes | None
    wait_for_sync: bool
    grace_s: float
    max_bytes: int
    keep_free: float
    retain_s: float | None


def run(settings: Settings, listener: Listener, stop: Stop, say: Callable[[str], None]) -> None:
    """Collect until *stop* is requested, then say how each run ended; *listener* is closed.

    Raises:
        ConfigError: it cannot start; the text tells what to do.
    """
    store = LocalStore(
        settings.directory, max_bytes=settings.max_bytes, keep_free=settings.keep_free, retain_s=settings.retain_s
    )
    instance = secrets.token_hex(8)
    notice = _notice(settings, listener, instance)
    announcement = Announcement(notice, os.environ)
    known = left_open(settings.directory)
    hub = _hub(settings, known, instance)
    recoverer = Recoverer(announcement.path, os.environ)
    edges = Edges(say=say, run_opened=announcement.add_run, recover=recoverer.want, poll_recovery=recoverer.poll)
    server = Server(listener, store, hub, edges, stop, grace_s=settings.grace_s, wait_for_sync=settings.wait_for_sync)
    say(f"listening on {notice.endpoint}, storing in {settings.directory}")
    if known:
        names = ", ".join(one.name for one in known[:3]) + (f" and {len(known) - 3} more" if len(known) > 3 else "")
        say(f"left open by an earlier collector: run {names}; it goes on when its ranks come back")
    printer = None if settings.quiet else Printer(announcement.path)
    try:
        server.run()
        server.farewell(lambda: printer is not None and printer.is_running())
    finally:
        if printer is not None:
            printer.end()
        recoverer.end()
        announcement.withdraw()
    for line in [*hub.last_words(), *hub.closing_lines()]:
        say(line)
    server.close_runs()
    listener.close()
    store.close()


def _notice(settings: Settings, listener: Listener, instance: str) -> Notice:
    endpoint = listener.endpoint
    reachable = Endpoint(socket.gethostname(), endpoint.port) if endpoint.is_wildcard else endpoint
    return Notice(
        endpoint=str(reachable),
        secret=None if settings.secret is None else settings.secret.decode(),
        pid=os.getpid(),
        host=socket.gethostname(),
        boot_id=boot_id(),
        directory=str(settings.directory),
        version=__version__,
        socket=listener.path,
        instance=instance,
    )


def _hub(settings: Settings, known: list[Known], instance: str) -> Hub:
    here = boot_id()

    def is_alive(origin: Origin) -> bool | None:
        return is_running(origin.pid) if origin.boot_id == here != "" else None

    return Hub(
        new_name=lambda: f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}",
        is_alive=is_alive,
        boot_id=here,
        instance=instance,
        only_run=settings.run,
        known=known,
    )
