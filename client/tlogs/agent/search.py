"""The outboxes of this user on this host, in all places where one may lie, whatever the environment says now."""

from __future__ import annotations

import glob
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

__all__ = ["find_outboxes", "places"]

SUFFIX: Final = ".outbox"
MEMORY: Final = "/dev/shm"


def places(environ: Mapping[str, str]) -> Iterator[Path]:
    """The directories in which this user's outboxes may lie, each once."""
    seen: set[tuple[int, int]] = set()
    asked = environ.get("TLOGS_OUTBOX_DIR")
    candidates = [asked] if asked else []
    for parent in (MEMORY, tempfile.gettempdir(), "/tmp"):
        name = os.path.join(parent, f"tlogs-{os.getuid()}")
        candidates += [name, *sorted(glob.glob(f"{glob.escape(name)}-????????"))]
    for candidate in candidates:
        try:
            found = os.stat(candidate, follow_symlinks=candidate == asked)
        except OSError:
            continue
        key = found.st_dev, found.st_ino
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and key not in seen:
            seen.add(key)
            yield Path(candidate)


def find_outboxes(environ: Mapping[str, str]) -> Iterator[Path]:
    """The outboxes of this user, of processes that live or are dead."""
    for directory in places(environ):
        try:
            names = sorted(name for name in os.listdir(directory) if name.endswith(SUFFIX))
        except OSError:
            continue
        for name in names:
            path = directory / name
            try:
                found = path.lstat()
            except OSError:
                continue
            if stat.S_ISREG(found.st_mode) and found.st_uid == os.getuid():
                yield path
