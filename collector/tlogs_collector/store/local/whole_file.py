"""Small files that are written and read whole: metadata, the ledger, what is set aside."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tlogs_collector.store.disk import Disk
from tlogs_shared.storage.layout import PARTIAL_SUFFIX, TORN_SUFFIX

__all__ = ["read_map", "read_whole", "write_all", "write_map"]


def write_all(disk: Disk, path: str, pieces: Sequence[bytes]) -> None:
    """Make a file of *pieces*, synced.

    Raises:
        OSError: the disk refuses; there may be a part of the file.
    """
    file = disk.create(path)
    try:
        for piece in pieces:
            rest = piece
            while rest:
                rest = rest[disk.write(file, [rest]) :]
        disk.sync(file)
    finally:
        disk.close(file)


def write_map(disk: Disk, directory: str, name: str, values: Mapping[str, Any]) -> None:
    """Put *values* as JSON into a file at once: whatever happens, the old or the new one is there, never a part.

    Raises:
        OSError: the disk refuses; the old one is there.
    """
    write_all(disk, f"{directory}/{name}{PARTIAL_SUFFIX}", [json.dumps(dict(values), indent=1).encode() + b"\n"])
    disk.rename(f"{directory}/{name}{PARTIAL_SUFFIX}", f"{directory}/{name}")
    disk.sync_directory(directory)


def read_whole(disk: Disk, path: str) -> bytes:
    """A file's content.

    Raises:
        OSError: the disk refuses, or the file does not exist.
    """
    file = disk.open(path)
    try:
        return disk.read(file, disk.size(file), 0)
    finally:
        disk.close(file)


def read_map(disk: Disk, directory: str, name: str, notes: list[str]) -> dict[str, Any] | None:
    """The JSON map in a file; None if the file does not exist. A malformed one is set aside, with a note.

    Raises:
        OSError: the disk refuses.
    """
    try:
        data = read_whole(disk, f"{directory}/{name}")
    except FileNotFoundError:
        return None
    try:
        values = json.loads(data)
    except ValueError:
        values = None
    if isinstance(values, dict):
        return values
    disk.rename(f"{directory}/{name}", f"{directory}/{name}{TORN_SUFFIX}")
    notes.append(f"{name}: {len(data)} bytes that are not a JSON map, set aside as {name}{TORN_SUFFIX}")
    return None
