"""The outboxes of this user on this host, in all places where one may lie, whatever the environment says now."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from tlogs_shared.host import outbox_owner, outbox_places

__all__ = ["find_outboxes"]


def find_outboxes(environ: Mapping[str, str]) -> Iterator[Path]:
    """The outboxes of this user, of processes that live or are dead."""
    for directory in outbox_places(environ):
        try:
            names = sorted(name for name in os.listdir(directory) if outbox_owner(name) is not None)
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
