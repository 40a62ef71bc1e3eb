"""Where the agent's socket of this host, user, job and collector is, and how it is reached.

The name is a hash of all that must not meet: another kernel (hosts may share a directory), another pid or network
namespace, another version of what is said, another collector, another job. Not the run: its key differs between the
ranks of one job.

The directory is private to the user (`tlogs_shared.unix_socket`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tlogs.access.agent_messages import VERSION
from tlogs.access.discovery import is_path
from tlogs_shared.host import is_coherent
from tlogs_shared.unix_socket import open_private, short_path, socket_directories

__all__ = ["Place", "find_place", "job_life", "reach"]

PREFIX: Final = "a-"
LOCK_SUFFIX: Final = ".lock"


@dataclass(frozen=True, slots=True)
class Place:
    """A directory of sockets and the agent's name in it; beside the socket lies the file that its starters lock."""

    directory: str
    name: str

    @property
    def path(self) -> str:
        """The path of the socket, for people."""
        return os.path.join(self.directory, self.name)


def find_place(collector: str, environ: Mapping[str, str]) -> Place | None:
    """Where the agent for *collector* is, or would be started; None where no directory can be used."""
    if given := environ.get("TLOGS_AGENT"):
        directory, name = os.path.split(os.path.abspath(given))
        return Place(directory, name)
    name = PREFIX + _digest(collector, environ)
    for directory in socket_directories(environ):
        try:
            os.close(open_private(directory))
        except OSError:
            continue
        if is_coherent(directory):
            return Place(directory, name)
    return None


def _digest(collector: str, environ: Mapping[str, str]) -> str:
    if is_path(collector):
        collector = os.path.realpath(collector)
    parts = (_kernel(), _namespace("pid"), _namespace("net"), str(VERSION), collector, job_life(environ))
    return hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()[:16]


def job_life(environ: Mapping[str, str]) -> str:
    """What ends together with this process's job, so that the end of one job takes no other's agent along."""
    if "SLURM_JOB_ID" in environ:
        return f"slurm:{environ['SLURM_JOB_ID']}.{environ.get('SLURM_STEP_ID', '')}"
    return environ.get("INVOCATION_ID") or _namespace("mnt")


def _kernel() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _namespace(kind: str) -> str:
    try:
        return os.readlink(f"/proc/self/ns/{kind}")
    except OSError:
        return ""


@contextmanager
def reach(place: Place) -> Iterator[str]:
    """A path to the socket that is short enough for the kernel, for as long as the context lasts.

    Raises:
        OSError: the directory is not private, or the path is too long and the system has no /proc.
    """
    fd = open_private(place.directory)
    try:
        yield short_path(place.directory, fd, place.name)
    finally:
        os.close(fd)
