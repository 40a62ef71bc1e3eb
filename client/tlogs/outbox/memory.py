"""How much memory an outbox may take: on a tmpfs its pages count for the job's memory cgroup, beside the training's.

A tmpfs has free space when the cgroup has none left, and then the kernel kills the training, not the outbox's writer
with an error. So an outbox grows there only while the tightest memory cgroup above it has room to spare.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from tlogs_shared.host import file_system
from tlogs_shared.storage.layout import OUTBOX_SUFFIX

__all__ = ["has_room", "held_in", "is_memory"]

SPARE_SHARE: Final = 32
SPARE_BYTES: Final = 256 << 20
"""A cgroup must have this part of its limit and this many bytes left when the outbox has grown."""

TOGETHER_SHARE: Final = 64
"""All outboxes of a directory hold at most this part of the tightest limit."""

_NO_LIMIT: Final = 1 << 60
"""Version 1 writes "no limit" as a number of pages that no machine has."""

_CGROUPS: Final = Path("/sys/fs/cgroup")
_OWN: Final = Path("/proc/self/cgroup")


class _Limit(NamedTuple):
    limit: int
    used: int


def has_room(size: int, together: int) -> bool:
    """Return True if *size* bytes more leave enough to the job, and *together* is not too much for all outboxes."""
    limits = list(_limits())
    if any(one.limit - one.used - size < one.limit // SPARE_SHARE + SPARE_BYTES for one in limits):
        return False
    return together <= min((one.limit for one in limits), default=_NO_LIMIT) // TOGETHER_SHARE


def held_in(directory: str | os.PathLike[str]) -> int:
    """The bytes that all outboxes in *directory* hold."""
    total = 0
    with os.scandir(directory) as found:
        for entry in found:
            if OUTBOX_SUFFIX in entry.name:
                try:
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
                except OSError:
                    pass  # gone meanwhile
    return total


def is_memory(path: str | os.PathLike[str]) -> bool:
    """Return True if files at *path* are kept in memory."""
    return file_system(path) in ("tmpfs", "ramfs")


def _limits() -> Iterator[_Limit]:
    """The limits of the memory cgroups that this process is in, from its own up to the root."""
    try:
        lines = _OWN.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            for root in (_CGROUPS, _CGROUPS / "unified"):
                yield from _walk(root, path, "memory.max", "memory.current", "")
        elif "memory" in controllers.split(","):
            yield from _walk(
                _CGROUPS / "memory", path, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"
            )  # fmt: skip


def _walk(root: Path, path: str, limit_file: str, usage_file: str, prefix: str) -> Iterator[_Limit]:
    parts = [part for part in path.split("/") if part not in ("", "..")]
    # In a container the path may be the host's, and only the root is there: it is the container's own cgroup.
    for depth in range(len(parts), -1, -1):
        directory = root.joinpath(*parts[:depth])
        try:
            limit = int(Path(directory, limit_file).read_text())
            used = int(Path(directory, usage_file).read_text())
            stat = dict(line.split(" ", 1) for line in Path(directory, "memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # not there, or "max"
            continue
        if limit < _NO_LIMIT:
            # The kernel gives back cached pages of files on disk before it kills anything.
            cached = sum(int(stat.get(f"{prefix}{name}", 0)) for name in ("active_file", "inactive_file"))
            yield _Limit(limit, used - cached)
