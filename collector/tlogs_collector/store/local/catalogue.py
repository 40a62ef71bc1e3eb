"""The runs that a daemon finds when it starts: those that were not closed and that nobody writes any more."""

from __future__ import annotations

import json
from pathlib import Path

from tlogs_collector.hub.hub import Known
from tlogs_shared.host import is_locked
from tlogs_shared.storage.layout import LOCK_FILE, RUN_FILE

__all__ = ["left_open"]


def left_open(directory: Path) -> list[Known]:
    """Runs whose daemon died: their ranks may come back, and continue them."""
    found = []
    for path in sorted(directory.iterdir()):
        try:
            meta = json.loads((path / RUN_FILE).read_bytes())
        except (OSError, ValueError):
            continue  # not a run, or one whose error is reported when it is opened
        if not isinstance(meta, dict) or "ended_ns" in meta or is_locked(path / LOCK_FILE):
            continue
        key, created_ns = meta.get("key"), meta.get("created_ns")
        if isinstance(key, str) and isinstance(created_ns, int):
            found.append(Known(path.name, key, created_ns))
    return found
