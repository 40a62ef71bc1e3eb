"""Bringing in what dead processes left in their outboxes: as an agent does it, without workers."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Final

from tlogs.access.discovery import Address
from tlogs.agent.agent import Agent
from tlogs.agent.setting import Setting
from tlogs.agent.ward import Ward
from tlogs.outbox.reader import Reader, open_outbox
from tlogs_shared.errors import MessageError
from tlogs_shared.host import outbox_owner
from tlogs_shared.origin import Origin

__all__ = ["HELD", "NOT_OURS", "Recovered", "Wish", "recover"]

PATIENCE_S: Final = 10.0
"""A collector that takes nothing for so long: the outbox stays, for another try."""

POLL_S: Final = 0.05
AT_ONCE: Final = 64
"""Outboxes that are open at the same time."""

ALIVE: Final = "its process is alive: the agent of its host sends from it"
HELD: Final = "an agent, or another command, is sending from it and has not finished"
CONTAINER: Final = "a process of another container is alive and writes to it"
FOREIGN: Final = "it belongs to another collector or run"
NOT_OURS: Final = frozenset({ALIVE, CONTAINER, FOREIGN})
"""What there is always: nobody is told unless the outbox was named."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What became of one outbox; `problem` is "" where all of it is stored, `records` None where an agent sent them."""

    path: str
    label: str
    records: int | None
    problem: str


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be brought in, and to where.

    With `to` everything goes to that collector, whichever an outbox names; with `only` just what belongs to that one,
    with `run` what belongs to that run. `setting` is how to reach collectors that are not this user's on this host.
    """

    to: str | None = None
    only: Address | None = None
    run: str | None = None
    setting: Setting = field(default_factory=Setting)
    patience_s: float = PATIENCE_S


@dataclass(slots=True)
class _Job:
    path: str
    label: str
    had: int
    ward: Ward


def recover(paths: Iterable[Path], environ: Mapping[str, str], wish: Wish) -> Iterator[Recovered]:
    """Bring in those of *paths* whose process is dead, each to the collector that it names.

    Of one that is alive, or that somebody else sends from, only that is reported; what an agent sends from is waited
    for as long as for a collector.
    """
    queue = iter(paths)
    unheard: dict[str, str] = {}
    while some := list(islice(queue, AT_ONCE)):
        held: list[Recovered] = []
        for found in _bring_in(some, environ, wish, unheard):
            if found.problem == HELD:
                held.append(found)
            else:
                yield found
        yield from _wait_for_others(held, wish.patience_s)


def _bring_in(
    paths: Iterable[Path], environ: Mapping[str, str], wish: Wish, unheard: dict[str, str]
) -> Iterator[Recovered]:
    agent = Agent(environ)
    jobs: dict[bytes, _Job] = {}
    done: list[Recovered] = []

    def stored(ward: Ward) -> None:
        job = jobs.pop(ward.stream)
        found = ward.source.reader.acknowledged - job.had - ward.source.reader.missing
        done.append(Recovered(job.path, job.label, found, ""))

    agent.done = stored
    try:
        for path in paths:
            if (found := _begin(agent, jobs, path, wish, unheard)) is not None:
                yield found
        _wait(agent, wish.patience_s)
        yield from done
        for job in jobs.values():
            yield _failed(agent, job, unheard)
    finally:
        agent.close()


def _begin(
    agent: Agent, jobs: dict[bytes, _Job], path: Path, wish: Wish, unheard: Mapping[str, str]
) -> Recovered | None:
    """Begin to bring in one outbox; what became of it where that is known at once."""
    label = ""
    try:
        reader = open_outbox(path)
    except FileNotFoundError:
        return None  # somebody else has brought it in
    except MessageError as error:
        return Recovered(str(path), label, 0, str(error))
    except OSError as error:
        return Recovered(str(path), label, 0, error.strerror or str(error))
    ward = None
    try:
        meta = reader.meta
        origin = Origin.from_map(meta.get("origin"))
        label = f"{origin.label} (of another container)" if _is_elsewhere(path) else origin.label
        named, fixed = wish.to or str(meta.get("endpoint", "")), None
        if wish.only is not None:
            belongs = _belongs(named, origin, wish.only)
            named, fixed = str(wish.only.endpoint), wish.only
        else:
            belongs = True
        if not belongs or wish.run not in (None, origin.run):
            return Recovered(str(path), label, 0, FOREIGN)
        if problem := _take(reader, path) or unheard.get(named, ""):
            return Recovered(str(path), label, 0, problem)
        had = reader.acknowledged
        ward = agent.bring_in(reader, named, wish.setting, fixed)
    except MessageError:
        return Recovered(str(path), label, 0, "it does not say whose it is")
    except FileNotFoundError:
        return None
    finally:
        if ward is None:
            reader.close()
    if ward is not None:
        jobs[ward.stream] = _Job(str(path), label, had, ward)
    return None


def _failed(agent: Agent, job: _Job, unheard: dict[str, str]) -> Recovered:
    """What is to be said of an outbox that was not taken whole."""
    named = job.ward.collector
    conversation = agent.conversations[named]
    problem = f"{named} did not take all of it; it stays"
    if conversation.link.streams[job.ward.stream].run is None:
        problem = unheard[named] = f"{conversation.problem or f'no answer from {named}'}; it stays"
    return Recovered(job.path, job.label, max(job.ward.source.reader.acknowledged - job.had, 0), problem)


def _wait_for_others(held: list[Recovered], patience_s: float) -> Iterator[Recovered]:
    """Wait until others have sent what they hold, and their outboxes are gone."""
    deadline = time.monotonic() + patience_s
    while held and time.monotonic() < deadline:
        time.sleep(POLL_S)
        for found in [found for found in held if not os.path.exists(found.path)]:
            held.remove(found)
            yield replace(found, records=None, problem="")
    yield from held


def _wait(agent: Agent, patience_s: float) -> None:
    """Let the agent send, for as long as something arrives."""
    before, deadline = -1, time.monotonic() + patience_s
    while agent.wards and time.monotonic() < deadline:
        agent.turn(0.2)
        arrived = sum(ward.source.acknowledged for ward in agent.wards.values()) - len(agent.wards)
        if arrived != before:
            before, deadline = arrived, time.monotonic() + patience_s


def _take(reader: Reader, path: Path) -> str:
    """Take and seal the outbox of a dead process; else say why not.

    Raises:
        FileNotFoundError: somebody was quicker, and has deleted it.
    """
    if reader.is_alive():
        return CONTAINER if _is_elsewhere(path) else ALIVE
    if not reader.take():
        return HELD
    if not os.path.samestat(os.fstat(reader.fd), os.lstat(path)):
        raise FileNotFoundError(path)
    reader.seal()
    return ""


def _is_elsewhere(path: Path) -> bool:
    """Return True if the outbox is one of another container, which shares the directory."""
    return outbox_owner(path.name) == 0


def _belongs(named: str, origin: Origin, only: Address) -> bool:
    if named in (str(only.endpoint), str(only.directory), str(only.directory and only.directory / "collector.json")):
        return True
    # A collector that was started again may listen elsewhere; the runs in its directory are its own.
    return only.directory is not None and origin.run is not None and (only.directory / origin.run).is_dir()
