"""Outboxes on this host whose process has ended before it ever reached its collector: nobody else knows of them.

Only names are looked at here: an outbox is called `<host>-<pid>-<stream>.outbox`. Whose it is, and whether it is
dead, is for `tlogs recover` to say, which opens it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tlogs_shared.host import is_running, outbox_path

__all__ = ["Orphans"]

_NAME: Final = re.compile(r".*-(\d+)-[0-9a-f]+\.outbox")


class Orphans:
    """The outboxes of this user on this host that may need to be brought in."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._directory = outbox_path(environ)
        self._seen: set[Path] = set()

    def look(self) -> list[str]:
        """Those whose process has ended and that were not named before."""
        found = []
        for path in self._directory.glob("*.outbox"):
            match = _NAME.fullmatch(path.name)
            if path not in self._seen and match is not None and not is_running(int(match[1])):
                self._seen.add(path)
                found.append(str(path))
        return sorted(found)
