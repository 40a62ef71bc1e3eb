"""Bringing in what dead processes left in their outboxes, always into the run that the outbox names."""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tlogs.access.discovery import Address, find_address
from tlogs.outbox.dead import open_dead
from tlogs.outbox.reader import Reader
from tlogs.worker.forwarder import Forwarder, Hooks
from tlogs.worker.link import Link
from tlogs_shared.errors import MessageError, TlogsError
from tlogs_shared.host import outbox_owner, outbox_places
from tlogs_shared.origin import Origin
from tlogs_shared.storage.layout import OUTBOX_SUFFIX

__all__ = ["Recovered", "candidates", "inherit", "recover"]

log = logging.getLogger("tlogs")

PATIENCE_S: Final = 10.0
"""A collector that takes nothing for so long: the outbox stays, for another try."""

HELD: Final = "another process holds it"
ELSEWHERE: Final = "a process of another container holds it"


@dataclass(frozen=True, slots=True)
class Recovered:
    """What became of one outbox; `problem` is "" where all of it is stored."""

    path: str
    label: str
    records: int
    problem: str


def candidates(directories: Iterable[Path]) -> Iterator[Path]:
    """The outboxes in *directories* that belong to this user, dead or alive."""
    for path in sorted(path for directory in directories for path in directory.glob(f"*{OUTBOX_SUFFIX}")):
        try:
            found = path.lstat()
        except OSError:
            continue
        if stat.S_ISREG(found.st_mode) and found.st_uid == os.getuid():
            yield path


def recover(
    paths: Iterable[Path], environ: Mapping[str, str], only: Address | None = None, run: str | None = None
) -> Iterator[Recovered]:
    """Deliver those of *paths* whose process is dead; with *only* and *run*, those of that collector and run.

    Of one that is alive, or that another process is delivering, only that is said.
    """
    unheard: set[str] = set()
    for path in paths:
        try:
            dead = open_dead(path)
        except FileNotFoundError:
            continue  # somebody else has brought it in
        except OSError as error:
            yield Recovered(str(path), "", 0, error.strerror or str(error))
            continue
        if dead is None:
            if path.exists():
                yield Recovered(str(path), "", 0, ELSEWHERE if outbox_owner(path.name) == 0 else HELD)
            continue
        deleted = False
        try:
            origin = Origin.from_map(dead.header.meta.get("origin"))
            address = None if run not in (None, origin.run) else _address(dead, origin, environ, only)
            if address is not None:
                found = _bring_in(dead, origin, address, unheard)
                if not found.problem:
                    dead.delete()
                    deleted = True
                yield found
        except (TlogsError, OSError) as error:
            text = "it does not say whose it is" if isinstance(error, MessageError) else str(error)
            yield Recovered(str(path), "", 0, text)
        finally:
            if not deleted:
                dead.close()


def _address(dead: Reader, origin: Origin, environ: Mapping[str, str], only: Address | None) -> Address | None:
    """The collector that this outbox belongs to, None where that is another than *only*."""
    named = str(dead.header.meta.get("endpoint", ""))
    if only is None:
        return find_address(named, environ)
    if named == str(only.endpoint):
        return only
    # A collector that was started again may listen elsewhere; the runs in its directory are its own.
    if only.directory is not None and origin.run is not None and (only.directory / origin.run).is_dir():
        return only
    return None


def _bring_in(dead: Reader, origin: Origin, address: Address, unheard: set[str]) -> Recovered:
    """Send what is left of one outbox; *unheard* are the endpoints where nobody answered before."""
    endpoint = str(address.endpoint)
    if endpoint in unheard:
        return Recovered(dead.path, origin.label, 0, f"no answer from {endpoint}; it stays")
    had = dead.acknowledged
    link = Link(dead.header.stream, origin, dead, secret=address.secret, nonce=os.urandom, recovering=True)
    hooks = Hooks(lay=lambda _: ({}, {}), every_second=lambda: None, loud=False)
    forwarder = Forwarder(link, dead, address.endpoint, address.secret, hooks, recovered=True)
    forwarder.start()
    done = forwarder.close(PATIENCE_S, greet_s=PATIENCE_S)
    problem = "" if done else f"{endpoint} did not take all of it; it stays"
    if link.run is None and not done:
        unheard.add(endpoint)
        problem = f"no answer from {endpoint}; it stays"
    return Recovered(dead.path, origin.label, dead.acknowledged - had - dead.missing, problem)


def inherit(address: Address, environ: Mapping[str, str]) -> None:
    """Bring in, on a thread of its own, what earlier workers of this collector left on this host.

    For a host without a collector of its own, which would do it.
    """

    def bring_in() -> None:
        try:
            for found in recover(candidates(outbox_places(environ)), environ, address):
                if found.problem:
                    log.debug("%s: %s", found.path, found.problem)
        except (TlogsError, OSError) as error:
            log.debug("recovery: %s", error)

    try:
        threading.Thread(target=bring_in, name="tlogs-recovery", daemon=True).start()
    except RuntimeError as error:  # no more threads for this process: what lies there can wait
        log.debug("recovery: %s", error)
