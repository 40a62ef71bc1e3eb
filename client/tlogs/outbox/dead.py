"""Opening the outboxes that dead processes left behind."""

from __future__ import annotations

import os

from tlogs.outbox.reader import Reader, open_outbox
from tlogs_shared.errors import MessageError

__all__ = ["open_dead"]


def open_dead(path: str | os.PathLike[str]) -> Reader | None:
    """Open an outbox whose process has ended, and take it; None where it is alive, not ours, taken, or no outbox.

    Raises:
        OSError: the file cannot be opened.
    """
    try:
        found = open_outbox(path)
    except (PermissionError, MessageError):
        return None
    try:
        free = not found.is_alive() and found.take()
        if free and os.path.samestat(os.fstat(found.fd), os.lstat(path)):  # else somebody was quicker
            found.seal()
            return found
    except FileNotFoundError:
        pass  # deleted meanwhile
    except BaseException:
        found.close()
        raise
    found.close()
    return None
