"""The request to end: made by a signal handler or a test, seen by the loop."""

from __future__ import annotations

import os

__all__ = ["Stop"]


class Stop:
    """How often the daemon was asked to end; `ready` is a file descriptor that becomes readable when it is asked."""

    def __init__(self) -> None:
        self.requests = 0
        self.ready, self._wake = os.pipe()
        os.set_blocking(self.ready, False)
        os.set_blocking(self._wake, False)

    def request(self) -> None:
        """Once: end when every rank has ended, after the grace at the latest; twice: now. Safe in a signal handler."""
        self.requests += 1
        try:
            os.write(self._wake, b".")
        except BlockingIOError:
            pass

    def clear(self) -> None:
        """Make `ready` wait for the next request."""
        try:
            os.read(self.ready, 4096)
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Close the descriptors."""
        os.close(self.ready)
        os.close(self._wake)
