"""How long a test may wait: for its processes, and as a whole. `TEST_SCALE=3` gives three times as long."""

from __future__ import annotations

import os
from typing import Final

__all__ = ["SCALE", "scaled"]

SCALE: Final = float(os.environ.get("TEST_SCALE") or 1)
"""For a machine that is slow, busy or emulated."""


def scaled(seconds: float) -> float:
    """A limit for this machine: *seconds* are what ends a wait that will never end, not what is measured."""
    return seconds * SCALE
