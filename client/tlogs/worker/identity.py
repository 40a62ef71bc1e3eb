"""Who this process is: its origin from the environment, learnt late from torch.distributed, or as a rank's helper."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Mapping, MutableMapping
from dataclasses import replace
from typing import Any, Final, NamedTuple

from tlogs.worker.command import command_line
from tlogs.worker.group import is_in_group
from tlogs_shared.errors import ConfigError
from tlogs_shared.host import boot_id
from tlogs_shared.origin import MAX_RANK, Origin
from tlogs_shared.storage.layout import RUN_NAME_RULE, is_run_name
from tlogs_shared.version import __version__

__all__ = ["find_key", "find_origin", "helper_of", "identify", "is_in_group", "learn", "mark", "unmark"]

MARK: Final = "TLOGS_PARENT"
"""Which process of which rank and run set this environment up, for what it starts."""

FORKSERVER: Final = "forkserver"
"""The process of multiprocessing that others are forked from; it imports the main module, too."""


class Mark(NamedTuple):
    """The value of MARK: a process that starts others, its rank variables, rank, run and key."""

    pid: int
    variables: str
    rank: int | None
    run: str | None
    key: str

    @classmethod
    def find(cls, environ: Mapping[str, str]) -> Mark | None:
        """Read another process's mark; a malformed one, or this process's own, is skipped."""
        pid, variables, rank, run, key = (environ.get(MARK, "").split(":", 4) + [""] * 5)[:5]
        if not pid.isdecimal() or int(pid) == os.getpid() or (run and not is_run_name(run)):
            return None
        known = int(rank) if rank.isdecimal() and int(rank) <= MAX_RANK else None
        return cls(int(pid), variables, known, run or None, key)


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
    marked = Mark.find(environ)
    name = run or environ.get("TLOGS_RUN") or None
    if name is not None and not is_run_name(name):
        source = f"run={name!r}" if run else f"TLOGS_RUN={name!r}"
        raise ConfigError(f"{source}: expected {RUN_NAME_RULE}")
    if name is None and marked is not None:
        name = marked.run
    origin = Origin(
        host=host,
        pid=os.getpid(),
        boot_id=boot_id(),
        run=name,
        key=find_key(environ, host, os.getppid(), marked),
        torch_logs=environ.get("TORCH_LOGS"),
        started_ns=time.time_ns(),
        version=__version__,
        command=command_line(sys.orig_argv),
        parent=0 if marked is None else marked.pid,
    )
    if rank is None:
        origin = find_origin(environ, origin)
    elif rank < 0 or (world_size is not None and rank >= world_size):
        raise ConfigError(f"rank={rank}, world_size={world_size}: expected a rank from 0 to world_size - 1")
    else:
        origin = replace(origin, rank=rank, local_rank=local_rank, world_size=world_size)
    helper = _helper_name(environ, marked)
    if helper is not None and marked is not None and origin.provisional:
        return replace(origin, helper=helper, rank=marked.rank, provisional=False)
    if origin.provisional and marked is None and origin.key.startswith("parent:") and not _is_of_multiprocessing():
        # Nothing shows that it belongs to a job; two programs that a shell has started are two runs.
        origin = replace(origin, key=f"process:{host}:{origin.pid}")
    return replace(origin, helper=helper)


def mark(environ: MutableMapping[str, str], origin: Origin) -> None:
    """Leave a mark for child processes: they belong to this run; with the same rank variables they are helpers."""
    if origin.helper is None:
        rank = "" if origin.rank is None else origin.rank
        environ[MARK] = f"{origin.pid}:{_rank_variables(environ)}:{rank}:{origin.run or ''}:{origin.key}"


def unmark(environ: MutableMapping[str, str]) -> None:
    """Take this process's mark away."""
    if environ.get(MARK, "").startswith(f"{os.getpid()}:"):
        del environ[MARK]


def helper_of(origin: Origin) -> Origin:
    """The origin of this process, which was forked from *origin*."""
    name = _process_name()
    if origin.helper not in (None, FORKSERVER):
        name = f"{origin.helper}/{name}"
    return replace(origin, pid=os.getpid(), parent=origin.pid, helper=name, started_ns=time.time_ns(), outbox="")


def learn(origin: Origin) -> Origin:
    """The origin with what torch.distributed knows by now; the same object if there is nothing new.

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


def _rank_variables(environ: Mapping[str, str]) -> str:
    names = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK")
    return ",".join(environ.get(name, "") for name in names)


def _helper_name(environ: Mapping[str, str], marked: Mark | None) -> str | None:
    if marked is None or marked.variables != _rank_variables(environ):
        return None
    # Without rank variables every child looks alike; one that multiprocessing has started works for its parent.
    if marked.variables.strip(",") == "" and not _is_of_multiprocessing():
        return None
    return _process_name()


def _is_of_multiprocessing() -> bool:
    """Return whether multiprocessing has started this process, also while the main module is imported in it."""
    process = sys.modules.get("multiprocessing.process")
    if process is None:
        return False
    return process.parent_process() is not None or getattr(process.current_process(), "_inheriting", False)


def _process_name() -> str:
    data = sys.modules.get("torch.utils.data")
    worker = data.get_worker_info() if data is not None and hasattr(data, "get_worker_info") else None
    if worker is not None:
        return f"DataLoader{worker.id}"
    process = sys.modules.get("multiprocessing.process")
    name = "MainProcess" if process is None else str(process.current_process().name)
    if name != "MainProcess":
        return name
    return FORKSERVER if _is_of_multiprocessing() else f"pid{os.getpid()}"


def find_origin(environ: Mapping[str, str], origin: Origin) -> Origin:
    """Label *origin* from the environment; of several launchers the first below wins.

    Raises:
        ConfigError: a malformed rank variable, or a rank outside its world.
    """

    def number(name: str) -> int | None:
        text = environ.get(name)
        if not text:  # some launchers leave an empty one
            return None
        try:
            value = int(text)
        except ValueError:
            value = -1
        if value < 0:
            raise ConfigError(f"{name}={text!r}: expected a number from 0 on, as the launcher sets it")
        return value

    def found(rank: int, local_rank: int | None, world_size: int | None, **more: Any) -> Origin:
        if world_size is not None and rank >= world_size:
            raise ConfigError(f"rank {rank} in a world of {world_size}: expected a rank from 0 to {world_size - 1}")
        if rank > MAX_RANK:
            raise ConfigError(f"rank {rank}: expected one from 0 to {MAX_RANK}")
        return replace(origin, rank=rank, local_rank=local_rank, world_size=world_size, provisional=False, **more)

    if (rank := number("RANK")) is not None:
        return found(
            rank,
            number("LOCAL_RANK"),
            number("WORLD_SIZE"),
            restart_count=number("TORCHELASTIC_RESTART_COUNT"),
            max_restarts=number("TORCHELASTIC_MAX_RESTARTS"),
        )
    if (local := number("LOCAL_RANK")) is not None and (node := number("NODE_RANK")) is not None:
        # Lightning starts its own processes so; the ranks of a node follow each other.
        per_node = number("LOCAL_WORLD_SIZE") or number("NPROC_PER_NODE")
        world = number("WORLD_SIZE")
        if node == 0 or per_node is not None:
            return found(node * (per_node or 0) + local, local, world)
    if "SLURM_STEP_ID" in environ and (rank := number("SLURM_PROCID")) is not None:
        return found(rank, number("SLURM_LOCALID"), number("SLURM_NTASKS"))
    if (rank := number("OMPI_COMM_WORLD_RANK")) is not None:
        return found(rank, number("OMPI_COMM_WORLD_LOCAL_RANK"), number("OMPI_COMM_WORLD_SIZE"))
    if (rank := number("PMI_RANK")) is not None:
        local = number("MPI_LOCALRANKID")
        return found(rank, number("PMI_LOCAL_RANK") if local is None else local, number("PMI_SIZE"))
    return replace(origin, rank=0, local_rank=0, world_size=1, provisional=True)


def find_key(environ: Mapping[str, str], host: str, parent_pid: int, marked: Mark | None = None) -> str:
    """The key that processes of one job share with no other job; *marked* is what started this process.

    A process that is started directly belongs to the job of its parent also where that has set MASTER_ADDR since, as
    Lightning's first rank does.

    >>> find_key({"TORCHELASTIC_RUN_ID": "none", "MASTER_ADDR": "n1", "MASTER_PORT": "29500"}, "n1", 12)
    'master:n1:29500'
    """
    run_id = environ.get("TORCHELASTIC_RUN_ID", "none")
    if run_id not in ("", "none"):
        return f"torchelastic:{run_id}"
    if job := environ.get("SLURM_JOB_ID"):
        return f"slurm:{job}"
    if marked is not None and marked.key and marked.pid == parent_pid:
        return marked.key
    if environ.get("MASTER_ADDR") and environ.get("MASTER_PORT"):
        return f"master:{environ['MASTER_ADDR']}:{environ['MASTER_PORT']}"
    if marked is not None and marked.key:
        return marked.key
    return f"parent:{host}:{parent_pid}"
