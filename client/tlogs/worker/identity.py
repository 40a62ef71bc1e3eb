"""Who this process is: its origin from the environment, learnt late from torch.distributed, or as a rank's helper."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Mapping, MutableMapping
from dataclasses import replace
from typing import Final

from tlogs_shared.errors import ConfigError
from tlogs_shared.host import boot_id
from tlogs_shared.origin import Origin, find_key, find_origin
from tlogs_shared.storage.layout import RUN_NAME_RULE, is_run_name
from tlogs_shared.version import __version__

__all__ = ["helper_of", "identify", "is_in_group", "learn", "mark", "unmark"]

MARK: Final = "TLOGS_PARENT"
"""Which process of which rank set this environment up: a child that inherits it is a helper of that rank."""


def identify(
    environ: Mapping[str, str],
    *,
    run: str | None = None,
    rank: int | None = None,
    local_rank: int | None = None,
    world_size: int | None = None,
) -> Origin:
    """This process's origin; an argument beats the environment.

    Raises:
        ConfigError: a malformed or out-of-range rank, or an invalid run name.
    """
    host = socket.gethostname()
    name = run or environ.get("TLOGS_RUN") or None
    if name is not None and not is_run_name(name):
        source = f"run={name!r}" if run else f"TLOGS_RUN={name!r}"
        raise ConfigError(f"{source}: expected {RUN_NAME_RULE}")
    origin = Origin(
        host=host,
        pid=os.getpid(),
        boot_id=boot_id(),
        run=name,
        key=find_key(environ, host, os.getppid()),
        torch_logs=environ.get("TORCH_LOGS"),
        started_ns=time.time_ns(),
        version=__version__,
    )
    if rank is None:
        origin = find_origin(environ, origin)
    elif rank < 0 or (world_size is not None and rank >= world_size):
        raise ConfigError(f"rank={rank}, world_size={world_size}: expected a rank from 0 to world_size - 1")
    else:
        origin = replace(origin, rank=rank, local_rank=local_rank, world_size=world_size)
    return replace(origin, helper=_helper_name(environ, origin))


def mark(environ: MutableMapping[str, str], origin: Origin) -> None:
    """Leave a mark for child processes: whoever finds it with the same rank in its environment is a helper."""
    if origin.helper is None:
        environ[MARK] = f"{origin.pid}:{_rank_variables(environ)}"


def unmark(environ: MutableMapping[str, str]) -> None:
    """Take this process's mark away."""
    if environ.get(MARK, "").startswith(f"{os.getpid()}:"):
        del environ[MARK]


def helper_of(origin: Origin) -> Origin:
    """The origin of this process, which was forked from *origin*."""
    name = f"{origin.helper}/{_process_name()}" if origin.helper else _process_name()
    return replace(origin, pid=os.getpid(), helper=name, started_ns=time.time_ns(), outbox="")


def learn(origin: Origin) -> Origin:
    """The origin with what torch.distributed knows by now; the same object where that is nothing new.

    A rank from a launcher's environment stays; one that was assumed gives way. A helper that initialises
    torch.distributed is a rank.
    """
    if not origin.provisional and origin.rank is not None and origin.helper is None:
        return origin
    if not is_in_group():
        return origin
    distributed = sys.modules["torch.distributed"]
    try:
        rank, world_size = int(distributed.get_rank()), int(distributed.get_world_size())
    except (AttributeError, RuntimeError, ValueError):  # being taken down at this moment
        return origin
    return replace(origin, rank=rank, world_size=world_size, helper=None, provisional=False)


def is_in_group() -> bool:
    """Whether torch.distributed is initialised here."""
    distributed = sys.modules.get("torch.distributed")
    try:
        return distributed is not None and bool(distributed.is_available() and distributed.is_initialized())
    except (AttributeError, RuntimeError, ValueError):  # half imported, or being taken down at this moment
        return False


def _rank_variables(environ: Mapping[str, str]) -> str:
    names = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK")
    return ",".join(environ.get(name, "") for name in names)


def _helper_name(environ: Mapping[str, str], origin: Origin) -> str | None:
    pid, _, variables = environ.get(MARK, "").partition(":")
    if not pid.isdigit() or int(pid) == origin.pid or variables != _rank_variables(environ):
        return None
    # Without rank variables every child looks alike; one that multiprocessing started for the job may be a rank.
    if variables.strip(",") == "" and multiprocessing.parent_process() is None:
        return None
    return _process_name()


def _process_name() -> str:
    data = sys.modules.get("torch.utils.data")
    worker = data.get_worker_info() if data is not None and hasattr(data, "get_worker_info") else None
    if worker is not None:
        return f"DataLoader{worker.id}"
    name = multiprocessing.current_process().name
    return f"pid{os.getpid()}" if name == "MainProcess" else name
